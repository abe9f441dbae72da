// What the induction page asks for: a request from its controls, whether a job asks for the same, and the page's address.
window.calibroscopeInductionRequest = (() => {
    const { LONGEST_LINK, join } = window.calibroscopeAddress;

    // From the controls in the order of _REQUEST (app/pages/induction/page.py).
    const whole = (value, otherwise) => (Number.isInteger(value) ? value : otherwise);
    const fromControls = ([model, run, source, text, sequences, span, neurons, parts, heads, top, seed, at]) => ({
        model, run, source: source || "synthetic", text: text || "", sequences: whole(sequences, 20),
        span: whole(span, 100), neurons: neurons || [], parts: parts || [], heads: heads || [], top: whole(top, 3),
        seed: whole(seed, 0), at: at || "every",
    });

    // As the service reads it (`InductionRequest` in backend/schemas).
    const body = (request) => ({
        source: request.source, text: request.source === "text" ? request.text : null, sequences: request.sequences,
        span: request.span, neurons: request.neurons, parts: request.parts, top_heads: request.top,
        heads: request.heads, seed: request.seed, knocked_out_at: request.at, run: Number(request.run),
    });

    // Why it cannot be measured, null where it can.
    const objection = (request, mostSequences = Infinity) => {
        if (!request.model || !request.run) return "There is no run to measure with yet.";
        if (!request.parts.length) return "Tick at least one part.";
        if (request.source === "text" && !request.text.trim())
            return "Write or paste a text in which something repeats first.";
        if (request.sequences > mostSequences)
            return "At most " + mostSequences + " sequences are run while you wait. For more, press “Run as a job”.";
        return null;
    };

    // What the numbers on the page are of. Neurons, heads and parts only add to them or leave some out.
    const decisive = ({ neurons, heads, parts, ...rest }) => JSON.stringify(rest);

    // Whether the controls ask for what a job does, lists in any order. A job that names no neurons takes those that are
    // offered: the first that the controls have are `job.neurons` from then on.
    const isAlike = (a, b) => JSON.stringify(a.toSorted()) === JSON.stringify(b.toSorted());
    const isOfJob = (job, request) => {
        if (!job.request) return true;
        const asked = { knocked_out_at: "every", ...job.request };  // jobs from before it could be chosen
        const here = body(request);
        if (!job.neurons && request.neurons.length)
            job.neurons = asked.neurons && asked.neurons.length ? asked.neurons : request.neurons;
        return Object.entries(asked).every(([name, value]) => {
            if (name === "neurons") return !job.neurons || isAlike(job.neurons, request.neurons);
            if (name === "run" && value === null) return true;
            return Array.isArray(value) ? isAlike(value, here[name] || []) : value === here[name];
        });
    };

    // A person's own text stands after the `#`, which no server is sent; `isCut`: it is too long for a link.
    const address = (request, job = null) => {
        if (job && isOfJob(job, request)) return { link: "/induction?job=" + job.number, isCut: false };
        const link = join("/induction", {
            model: request.model, run: request.run, source: request.source, sequences: request.sequences,
            span: request.span, seed: request.seed, neurons: request.neurons.join(","), parts: request.parts.join(","),
            top: request.top, ...(request.at === "every" ? {} : { at: request.at }),
            ...(request.heads.length ? { heads: request.heads.join(",") } : {}),
        });
        const hash = request.source === "text" && request.text ? "#" + new URLSearchParams({ text: request.text }) : "";
        const isCut = hash.length > LONGEST_LINK;
        return { link: isCut ? link : link + hash, isCut };
    };

    return { fromControls, body, objection, decisive, isOfJob, address };
})();
