// The Text lab's sliders: the newest position is asked for when the answer to the one before has come.
window.calibroscopeLabSliders = (() => {
    const GIVEN_UP_MS = 5000;  // for an answer that never came
    const { byId, set, unchanged } = window.calibroscopeDom;
    let waiting = null, asked = null, busySince = 0;
    // A slider and its number follow each other. A control that has not drawn its last value yet writes that value back;
    // taken for a person's, it would send the two after each other for ever.
    const ECHO_MS = 600, moves = new Map();
    let settling = 0;
    const isEcho = (neuron, type, value) => {
        const move = moves.get(neuron), now = performance.now();
        return Boolean(move) && type !== move.type && now - move.at < ECHO_MS && move.recent.includes(value);
    };
    const noteMove = (neuron, type, value) => {
        const move = moves.get(neuron), now = performance.now();
        const before = move && now - move.at < ECHO_MS ? move.recent.slice(-50) : [];
        moves.set(neuron, { type, at: now, value, recent: [...before, value] });
        clearTimeout(settling);
        settling = setTimeout(() => {  // whatever a late control still shows
            for (const [name, { value: last }] of moves)
                for (const control of ["lab-slider", "lab-value"])
                    if (byId(JSON.stringify({ neuron: name, type: control }))) set({ neuron: name, type: control }, { value: last });
            moves.clear();
        }, ECHO_MS);
    };
    const flush = () => {
        if (!waiting) return;
        asked = JSON.stringify(waiting);
        busySince = performance.now();
        set("lab-chosen", { data: waiting });
        waiting = null;
    };

    const shapeOf = (chosen) => {
        if (asked === JSON.stringify(chosen)) return unchanged();  // a slider moved: it must not be drawn anew
        waiting = null;
        return chosen;
    };

    const slide = (_, __, chosen) => {
        const { triggered } = window.dash_clientside.callback_context;
        let rows = waiting || chosen || [];
        const twins = new Map();
        for (const { prop_id, value } of triggered) {
            if (typeof value !== "number" || !Number.isFinite(value)) continue;
            const { neuron, type } = JSON.parse(prop_id.slice(0, prop_id.lastIndexOf(".")));
            const row = rows.find((one) => one.neuron === neuron);
            if (!row || row.value === null || row.value === value || isEcho(neuron, type, value)) continue;
            const kept = Math.min(1e4, Math.max(-1e4, value));
            rows = rows.map((one) => (one === row ? { ...one, value: kept } : one));
            noteMove(neuron, type, kept);
            const twin = type === "lab-slider" ? "lab-value" : "lab-slider";
            twins.set({ neuron, type: twin }, kept);
            waiting = rows;
        }
        if (waiting && (!busySince || performance.now() - busySince > GIVEN_UP_MS)) flush();
        for (const [twin, value] of twins) set(twin, { value });  // after the question, which they would hold up
        return unchanged();
    };

    const settled = () => {
        busySince = 0;
        flush();
        return unchanged();
    };

    return { shapeOf, slide, settled };
})();
