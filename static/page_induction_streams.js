// Streams into the induction page's panels: an experiment that is waited for, or a job's results as they come. Events go
// into the page's stores, from which its callbacks draw.
window.calibroscopeInductionStreams = (() => {
    const PAGE = "induction-";
    const { addFailure, ...dom } = window.calibroscopeDom;
    const { UNREACHABLE, get, post, write, refusal, events } = window.calibroscopeStream;
    const LOST = "The connection was lost before the run had ended. Run it again.";
    const LOST_JOB = "The connection was lost. The job goes on without it: load this page again to see how far it is.";
    const STORES = ["start", "curves", "clips", "change", "head-scores", "knockouts", "attribution"];
    // Of single events; those that come in numbers are gathered.
    const STORE = { start: "start", curves: "curves", change: "change", heads: "head-scores" };
    const LISTS = { clip: "clips", knockout: "knockouts", attribution: "attribution" };
    // A panel is drawn anew with each change of its list.
    const GATHER_MS = 700, LEFT_MS = 250;

    const set = (name, props) => dom.set(PAGE + name, props);
    const byId = (name) => dom.byId(PAGE + name);
    const say = (name, sentence) => dom.write(PAGE + name, sentence);

    let running = null;
    const cancel = () => { if (running) running.abort(); };
    // One thing at a time fills the panels. One that is waited for can be cancelled here, and ends with the page.
    const occupy = (root, isWaitedFor, work) => {
        cancel();
        const control = (running = new AbortController());
        // Leaving the page takes its root away: the service must not go on for nobody.
        const watch = window.setInterval(() => { if (!root.isConnected) control.abort(); }, LEFT_MS);
        set("go", { loading: isWaitedFor });
        set("cancel", { disabled: !isWaitedFor });
        work(control).finally(() => {
            window.clearInterval(watch);
            if (running !== control) return;
            running = null;
            if (!root.isConnected) return;
            set("go", { loading: false });
            set("cancel", { disabled: true });
        });
    };

    const partOf = (event) => (event.kind === "knockout" ? event.how : event.kind);
    const panels = (root, request) => {
        const lists = Object.fromEntries(Object.values(LISTS).map((name) => [name, []]));
        const arrived = new Set(), changed = new Set();
        let phase = "running", waiting = 0;
        const mine = (root.panels = {});
        const areOurs = () => root.isConnected && root.panels === mine;
        const showPhase = () => {
            if (areOurs()) set("phase", { data: { phase, parts: request.parts, arrived: [...arrived], run: request.run } });
        };
        const flush = () => {
            window.clearTimeout(waiting);
            waiting = 0;
            if (areOurs()) for (const name of changed) set(name, { data: [...lists[name]] });
            changed.clear();
        };
        for (const name of STORES) set(name, { data: null });
        showPhase();
        return {
            take(event) {
                const list = LISTS[event.kind], before = arrived.size;
                if (list) {
                    lists[list].push(event);
                    changed.add(list);
                    if (!waiting) waiting = window.setTimeout(flush, GATHER_MS);
                } else if (event.kind in STORE) set(STORE[event.kind], { data: event });
                if (event.kind !== "start") arrived.add(partOf(event));
                if (arrived.size !== before) showPhase();
            },
            end(how) {
                flush();
                phase = how;
                showPhase();
            },
        };
    };

    // The event that ends the stream; undefined where it broke off, null where the page was left.
    const read = async (stream, root, into, progressInWords) => {
        for await (const event of stream) {
            if (!root.isConnected) return null;
            if (event.kind === "progress") {
                set("progress", { value: event.of ? (100 * event.done) / event.of : 0 });
                say("doing", progressInWords(event));
            } else if (event.kind === "end" || event.kind === "problem") return event;
            else into.take(event);
        }
        return undefined;
    };

    const steps = (event) => event.doing + " (" + event.done + " of " + event.of + ")";
    const measure = async (root, request, control) => {
        const { body } = window.calibroscopeInductionRequest, asked = body(request), errors = byId("failed");
        errors.replaceChildren();
        const into = panels(root, asked);
        set("progress", { value: 0 });
        say("doing", "Beginning…");
        say("status", "");
        const fail = (sentence) => {
            into.end("failed");
            say("doing", "Stopped by an error.");
            if (root.isConnected) addFailure(errors, sentence);
        };
        try {
            const answer = await post("/models/" + encodeURIComponent(request.model) + "/induction", asked, control.signal);
            if (!answer.ok) { fail(await refusal(answer)); return; }
            const last = await read(events(answer), root, into, steps);
            if (last === undefined) fail(LOST);
            else if (last && last.kind === "problem") fail(last.problem.detail);
            else if (last) {
                into.end("done");
                set("progress", { value: 100 });
                say("doing", "");
                say("status", "Measured in " + last.seconds.toFixed(1) + " s.");
            }
        } catch {
            if (!control.signal.aborted) fail(UNREACHABLE);
            else if (root.isConnected && running === control) {
                into.end("stopped");
                say("doing", "");
                say("status", "Cancelled. What had arrived is kept.");
            }
        }
    };

    const share = (event) => event.doing + (event.done ? " (" + Math.round((100 * event.done) / event.of) + " %)" : "");
    const follow = async (root, job, control) => {
        const errors = byId("failed"), path = "/jobs/" + job.number;
        const isOurs = () => root.isConnected && !control.signal.aborted;
        errors.replaceChildren();
        set("progress", { value: 0 });
        say("status", "");
        say("doing", "");
        let into = null;
        const fail = (sentence) => {
            if (!isOurs()) return;
            if (into) into.end("failed");
            say("doing", "");
            addFailure(errors, sentence);
        };
        try {
            const answer = await get(path, control.signal);
            if (!answer.ok) { fail(await refusal(answer)); return; }
            const { request, run } = await answer.json();
            job.request = request;
            into = panels(root, { parts: request.parts || ["curves", "clip", "change"], run });
            const results = await get(path + "/events", control.signal);
            if (!results.ok) { fail(await refusal(results)); return; }
            const last = await read(events(results), root, into, share);
            if (last === undefined) fail(LOST_JOB);
            if (!last || !isOurs()) return;
            const status = last.kind === "end" ? "finished" : (await (await get(path, control.signal)).json()).status;
            if (status === "failed") { fail(last.problem.detail); return; }
            const isFinished = status === "finished";
            into.end(isFinished ? "done" : "stopped");
            say("doing", "");
            say("status", isFinished ? "Job " + job.number + " is finished." : last.problem.detail + " What it had found is shown.");
            if (isFinished) set("progress", { value: 100 });
        } catch {
            fail(LOST_JOB);
        } finally {
            if (isOurs()) dom.set("jobs-changed", { data: Date.now() });
        }
    };

    const showExperiment = (root, request) => occupy(root, true, (control) => measure(root, request, control));
    // The page shows `root.job` from now on. Leaving the page cancels no job.
    const showJob = (root, number) => {
        root.job = { number, request: null };
        occupy(root, false, (control) => follow(root, root.job, control));
    };
    const queueJob = async (root, request) => {
        const { body } = window.calibroscopeInductionRequest, errors = byId("failed");
        errors.replaceChildren();
        set("queue", { loading: true });
        try {
            const asked = { kind: "induction", model: request.model, induction: body(request) };
            const answer = await write("/jobs", asked);
            if (!root.isConnected) return;
            if (!answer.ok) { addFailure(errors, await refusal(answer)); return; }
            const { id } = await answer.json();
            set("shown", { data: { job: id, by_itself: false } });
            showJob(root, id);
        } catch {
            if (root.isConnected) addFailure(errors, UNREACHABLE);
        } finally {
            if (root.isConnected) set("queue", { loading: false });
        }
    };

    return { set, byId, say, cancel, showExperiment, showJob, queueJob };
})();
