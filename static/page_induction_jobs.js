// Jobs on the induction page: queued from its controls, followed into its panels; leaving the page cancels none.
window.calibroscopeInductionJobs = (() => {
    const { set: setProps, unchanged, addFailure } = window.calibroscopeDom;
    const { UNREACHABLE, get, write, refusal, events } = window.calibroscopeStream;
    const page = () => window.calibroscopeInduction.parts;
    const changed = () => setProps("jobs-changed", { data: Date.now() });
    const LOST = "The connection was lost. The job goes on without it: load this page again to see how far it is.";

    const inWords = (event) => event.doing + (event.done ? " (" + Math.round((100 * event.done) / event.of) + " %)" : "");
    const follow = async (root, number, control) => {
        const { set, byId, say, sink, take } = page(), errors = byId("failed"), path = "/jobs/" + number;
        const ours = () => root.isConnected && !control.signal.aborted;
        errors.replaceChildren();
        set("progress", { value: 0 });
        say("said", "");
        say("doing", "");
        let into = null;
        const fail = (sentence) => {
            if (!ours()) return;
            if (into) into.end("failed");
            say("doing", "");
            addFailure(errors, sentence);
        };
        try {
            const record = await get(path, control.signal);
            if (!record.ok) { fail(await refusal(record)); return; }
            const job = await record.json();
            root.shown = { job: number, request: job.request };
            into = sink(root, { parts: job.request.parts || ["curves", "clip", "change"], run: job.run });
            into.begin();
            const answer = await get(path + "/events", control.signal);
            if (!answer.ok) { fail(await refusal(answer)); return; }
            const last = await take(events(answer), root, into, inWords);
            if (last === undefined) fail(LOST);
            if (!last || !ours()) return;
            const ended = last.kind === "end" ? "finished" : (await (await get(path, control.signal)).json()).status;
            if (ended === "failed") fail(last.problem.detail);
            else {
                into.end(ended === "finished" ? "done" : "stopped");
                say("doing", "");
                say("said", ended === "finished" ? "Job " + number + " is finished." : last.problem.detail +
                    " What it had found is shown.");
                if (ended === "finished") set("progress", { value: 100 });
            }
        } catch {
            fail(LOST);
        } finally {
            if (ours()) changed();
        }
    };
    const show = (root, number) => {
        root.shown = { job: number, request: null };
        page().occupy(root, false, (control) => follow(root, number, control));
    };
    const add = async (root, now) => {
        const { set, byId, bodyOf } = page(), errors = byId("failed");
        errors.replaceChildren();
        set("queue", { loading: true });
        try {
            const body = { kind: "induction", model: now.model, induction: bodyOf(now) };
            const answer = await write("/jobs", body);
            if (!root.isConnected) return;
            if (!answer.ok) { addFailure(errors, await refusal(answer)); return; }
            const job = await answer.json();
            set("shown", { data: { job: job.id, by_itself: false } });
            show(root, job.id);
            page().write();
        } catch {
            if (root.isConnected) addFailure(errors, UNREACHABLE);
        } finally {
            if (root.isConnected) set("queue", { loading: false });
        }
    };

    // Whether the controls still ask for what the job does. Lists in any order; no neurons: those that are offered.
    const alike = (a, b) => JSON.stringify(a.toSorted()) === JSON.stringify(b.toSorted());
    const sameRequest = (shown, now) => {
        if (!shown.request) return true;
        const request = { knocked_out_at: "every", ...shown.request };  // jobs from before it could be chosen
        const body = page().bodyOf(now);
        if (!shown.neurons && now.neurons.length)
            shown.neurons = request.neurons && request.neurons.length ? request.neurons : now.neurons;
        return Object.entries(request).every(([name, value]) => {
            if (name === "neurons") return !shown.neurons || alike(shown.neurons, now.neurons);
            if (name === "run" && value === null) return true;
            return Array.isArray(value) ? alike(value, body[name] || []) : value === body[name];
        });
    };

    return {
        show,
        sameRequest,
        queue(_, ...given) {
            const { byId, asked, objection } = page(), root = byId("root");
            if (!root) return unchanged();
            root.begun = true;
            const now = asked(given), no = objection(now), errors = byId("failed");
            if (no) {
                errors.replaceChildren();
                addFailure(errors, no);
            } else add(root, now);
            return unchanged();
        },
    };
})();
