// The induction page in the browser: asks the service for a run, puts its events into the page's stores as they arrive,
// cancels it, and keeps the whole request in the address; a person's own text after `#`, which no server is sent.
(() => {
    const ID = "induction-";
    const dom = window.calibroscopeDom, { LONGEST_LINK, join, show, hashParameters } = window.calibroscopeAddress;
    const { UNREACHABLE, post, refusal, events } = window.calibroscopeStream;
    const { unchanged, addFailure, copyText } = dom;
    const set = (name, props) => dom.set(ID + name, props);
    const byId = (name) => dom.byId(ID + name);
    const say = (name, words) => dom.write(ID + name, words);
    const STORES = ["start", "curves", "clips", "change", "found-heads", "knockouts", "attribution"];
    // Of single events; those that come in numbers are gathered.
    const STORE = { start: "start", curves: "curves", change: "change", heads: "found-heads" };
    const LISTS = { clip: "clips", knockout: "knockouts", attribution: "attribution" };

    // ---- a request, from the controls in the order of _REQUEST (app/pages/induction/page.py)
    const whole = (value, otherwise) => (Number.isInteger(value) ? value : otherwise);
    const asked = ([model, run, source, text, sequences, span, neurons, parts, heads, top, seed, at]) => ({
        model, run, source: source || "synthetic", text: text || "", sequences: whole(sequences, 20),
        span: whole(span, 100), neurons: neurons || [], parts: parts || [], heads: heads || [], top: whole(top, 3),
        seed: whole(seed, 0), at: at || "every",
    });
    const bodyOf = (now) => ({
        source: now.source, text: now.source === "text" ? now.text : null, sequences: now.sequences, span: now.span,
        neurons: now.neurons, parts: now.parts, top_heads: now.top, heads: now.heads, seed: now.seed,
        knocked_out_at: now.at, run: Number(now.run),
    });
    const objection = (now, most = Infinity) => {
        if (!now.model || !now.run) return "There is no run to measure with yet.";
        if (!now.parts.length) return "Tick at least one part.";
        if (now.source === "text" && !now.text.trim()) return "Write or paste a text in which something repeats first.";
        if (now.sequences > most)
            return "At most " + most + " sequences are run while you wait. For more, press “Run as a job”.";
        return null;
    };

    // ---- the address
    const addressOf = (now) => {
        const shown = byId("root") && byId("root").shown;
        if (shown && window.calibroscopeInductionJobs.sameRequest(shown, now))
            return { address: "/induction?job=" + shown.job, cut: false };
        const query = new URLSearchParams({
            model: now.model, run: now.run, source: now.source, sequences: now.sequences, span: now.span,
            seed: now.seed, neurons: now.neurons.join(","), parts: now.parts.join(","), top: now.top,
        });
        if (now.at !== "every") query.set("at", now.at);
        if (now.heads.length) query.set("heads", now.heads.join(","));
        const path = join("/induction", query);
        const hash = now.source === "text" && now.text ? "#" + new URLSearchParams({ text: now.text }) : "";
        return hash.length <= LONGEST_LINK ? { address: path + hash, cut: false } : { address: path, cut: true };
    };
    let current = null, writing = 0;
    const write = (now) => {
        if (!byId("root") || window.location.pathname !== "/induction") return;
        show(addressOf(now).address);
    };

    // ---- a run
    let running = null;
    const cancel = () => { if (running) running.abort(); };
    const partOf = (event) => (event.kind === "knockout" ? event.how : event.kind);

    // Puts events into the stores. A page's panels are drawn anew with each change of theirs: lists wait a little.
    const sink = (root, request) => {
        const lists = Object.fromEntries(Object.values(LISTS).map((name) => [name, []]));
        const arrived = new Set();
        let phase = "running", waiting = 0;
        const mine = (root.sink = {});  // another run may have taken the panels over
        const here = () => root.isConnected && root.sink === mine;
        const showPhase = () => {
            if (here()) set("phase", { data: { phase, parts: request.parts, arrived: [...arrived], run: request.run } });
        };
        const flush = () => {
            window.clearTimeout(waiting);
            waiting = 0;
            for (const [name, list] of Object.entries(lists))
                if (here() && list.changed) { set(name, { data: [...list] }); list.changed = false; }
        };
        return {
            begin() {
                for (const name of STORES) set(name, { data: null });
                showPhase();
            },
            take(event) {
                if (event.kind in LISTS) {
                    const list = lists[LISTS[event.kind]];
                    list.push(event);
                    list.changed = true;
                    if (!waiting) waiting = window.setTimeout(flush, 700);
                } else if (event.kind in STORE) set(STORE[event.kind], { data: event });
                const before = arrived.size;
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

    const counted = (event) => event.doing + " (" + event.done + " of " + event.of + ")";
    const take = async (stream, root, into, inWords) => {
        for await (const event of stream) {
            if (!root.isConnected) return null;
            if (event.kind === "progress") {
                set("progress", { value: event.of ? (100 * event.done) / event.of : 0 });
                say("doing", inWords(event));
            } else if (event.kind === "end" || event.kind === "problem") return event;
            else into.take(event);
        }
        return undefined;
    };
    const measure = async (root, now, control) => {
        const request = bodyOf(now), into = sink(root, request), errors = byId("failed");
        errors.replaceChildren();
        root.measured = decisive(now);
        outdate(root, now);
        into.begin();
        set("progress", { value: 0 });
        say("doing", "Beginning…");
        say("said", "");
        const fail = (sentence) => {
            into.end("failed");
            say("doing", "Stopped by an error.");
            if (root.isConnected) addFailure(errors, sentence);
        };
        try {
            const path = "/models/" + encodeURIComponent(now.model) + "/induction";
            const answer = await post(path, request, control.signal);
            if (!answer.ok) { fail(await refusal(answer)); return; }
            const last = await take(events(answer), root, into, counted);
            if (last === undefined) fail("The connection was lost before the run had ended. Run it again.");
            else if (last && last.kind === "problem") fail(last.problem.detail);
            else if (last) {
                into.end("done");
                set("progress", { value: 100 });
                say("doing", "");
                say("said", "Measured in " + last.seconds.toFixed(1) + " s.");
            }
        } catch {
            if (!control.signal.aborted) fail(UNREACHABLE);
            else if (root.isConnected && running === control) {
                into.end("stopped");
                say("doing", "");
                say("said", "Cancelled. What had arrived is kept.");
            }
        }
    };
    // One thing at a time fills the panels. One that is waited for can be cancelled here, and ends with the page.
    const occupy = (root, waited, work) => {
        cancel();
        const control = (running = new AbortController());
        // Leaving the page takes its root away: the service must not go on for nobody.
        const watch = window.setInterval(() => { if (!root.isConnected) control.abort(); }, 250);
        set("go", { loading: waited });
        set("cancel", { disabled: !waited });
        work(control).finally(() => {
            window.clearInterval(watch);
            if (running !== control) return;
            running = null;
            if (!root.isConnected) return;
            set("go", { loading: false });
            set("cancel", { disabled: true });
        });
    };
    const begin = (now) => {
        const root = byId("root"), errors = byId("failed");
        if (!root) return;
        const no = objection(now, Number(root.dataset.most));
        if (no) {
            errors.replaceChildren();
            addFailure(errors, no);
            return;
        }
        root.shown = null;
        set("shown", { data: null });
        occupy(root, true, (control) => measure(root, now, control));
        write(now);
    };

    // Neurons, heads and parts only add to what is measured, or leave out: what is there stays right.
    const decisive = ({ neurons, heads, parts, ...rest }) => JSON.stringify(rest);
    const outdate = (root, now) => {
        const other = root.measured && root.measured !== decisive(now);
        const panels = [...root.querySelectorAll(".panel[id]")].map((one) => one.id);
        window.calibroscopeOutdated.settings([ID + "summary", ...panels], other ? "Of the settings before: press Run." : "");
    };

    const linkedText = () => hashParameters().get("text");

    window.calibroscopeInduction = {
        // for page_induction_jobs.js
        parts: {
            set, byId, say, asked, bodyOf, objection, sink, take, occupy, write: () => { if (current) write(current); },
        },
        follow(...given) {
            const root = byId("root"), job = given.pop(), auto = given.pop();
            if (!root) return unchanged();
            if (root.visit !== root.dataset.visit)  // drawn anew, perhaps in the same element
                Object.assign(root, { visit: root.dataset.visit, begun: false, linked: undefined, shown: null, measured: null });
            if (job && !root.begun) {
                root.begun = true;
                window.calibroscopeInductionJobs.show(root, job.job);
            }
            let now = asked(given);
            if (root.linked === undefined) {
                root.linked = now.source === "text" ? linkedText() : null;
                if (root.linked !== null) {  // what this sets calls again
                    root.until = performance.now() + 2000;
                    set("text", { value: root.linked });
                }
            }
            if (root.linked !== null) {  // until the box has the link's text, what it holds is of another time
                if (now.text === root.linked || performance.now() > root.until) root.linked = null;
                else now = { ...now, text: root.linked };
            }
            current = now;
            if (!now.model || !now.run) return unchanged();
            outdate(root, now);
            if (auto && !root.begun) {
                root.begun = true;
                begin(now);
            }
            window.clearTimeout(writing);
            writing = window.setTimeout(() => write(now), 200);
            return unchanged();
        },
        run(_, ...given) {
            const root = byId("root");
            if (root) root.begun = true;
            begin(asked(given));
            return unchanged();
        },
        cancel() {
            cancel();
            return unchanged();
        },
        async copyLink() {
            if (!current || !current.run) { say("said", "There is no run yet to link to."); return unchanged(); }
            const { address, cut } = addressOf(current);
            const done = await copyText(window.location.origin + address);
            say("said", (done ? "Copied." : "Copying is not allowed here: copy the address of this page.") +
                (cut ? " The text is too long for a link: it is not in it." : ""));
            return unchanged();
        },
        // Another source: the usual length of its repeats, unless a person has chosen one.
        sourced(source, span, usual) {
            const chosen = Number.isInteger(span) && !Object.values(usual).includes(span);
            return [source === "text" ? {} : { display: "none" }, chosen ? unchanged() : usual[source]];
        },
    };
})();
