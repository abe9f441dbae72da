// What a changed setting has outdated is dimmed until its successor is there, with a sign that something goes on: numbers
// of the setting before must not pass for those of the one that is shown. A service that fails ends it as well.
window.calibroscopeOutdated = (() => {
    const { byId } = window.calibroscopeDom;
    const AFTER_MS = 150;  // what is answered sooner would only flicker
    const LINGER_MS = 150;  // one callback's answer asks the next, and is drawn meanwhile
    const lab = ["lab-result", "lab-text-panel", "lab-pinned-canvas", "lab-detail", "lab-who"];
    // By what a callback puts out: the regions that show it, and, where others also ask for it, whose asking counts.
    const RULES = [
        { output: "lab-traced", regions: lab },
        { output: "lab-changes", regions: ["lab-result", "lab-canvas", "lab-detail"] },
        { output: "lab-who", regions: ["lab-who"] },
        { output: "lab-pinned", regions: ["lab-pinned-canvas"] },
        { output: "atlas-banner", by: ["atlas-model", "atlas-run"], regions: ["atlas-main"] },
        { output: "atlas-data", goesOn: true, regions: ["atlas-main"] },
        { output: "atlas-sentences", by: ["atlas-x", "atlas-y", "atlas-chosen"], regions: ["atlas-sentences", "atlas-note"] },
        { output: "frequency-body", by: ["frequency-model", "frequency-run"], regions: ["frequency-body"] },
        { output: "spectrum-body", notBy: ["spectrum-poll"], regions: ["spectrum-body"] },
        { type: "neuron-context-ablated" },
        { type: "induction-body" },
    ];
    const region = new Map();  // by element id: { waiting, since, sentence, timer, leaving }

    const idOf = (id) => (typeof id === "string" ? id
        : JSON.stringify(Object.fromEntries(Object.entries(id).toSorted(([a], [b]) => (a < b ? -1 : 1)))));
    const draw = (id) => {
        const place = byId(id), state = region.get(id);
        if (!place) return;
        const isWaiting = state && (state.waiting ? performance.now() - state.since >= AFTER_MS || state.dimmed : state.dimmed);
        if (isWaiting || (state && state.sentence)) {
            const seconds = Math.floor((performance.now() - state.since) / 1000);
            place.dataset.outdated = isWaiting ? "Computing… " + (seconds ? seconds + " s" : "") : state.sentence;
            if (isWaiting) { state.dimmed = true; place.setAttribute("aria-busy", "true"); } else place.setAttribute("aria-busy", "false");
        } else if ("outdated" in place.dataset) {
            delete place.dataset.outdated;
            place.setAttribute("aria-busy", "false");
        }
    };
    const stateOf = (id) => {
        if (!region.has(id)) region.set(id, { waiting: 0, since: 0, sentence: "", timer: 0, leaving: 0, dimmed: false });
        return region.get(id);
    };
    const begin = (id) => {
        const state = stateOf(id), place = byId(id);
        if (!place || !place.hasChildNodes()) return false;  // nothing there that could be out of date
        clearTimeout(state.leaving);
        if (!state.waiting && !state.dimmed) state.since = performance.now();
        state.waiting += 1;
        if (!state.timer) state.timer = setInterval(() => draw(id), 250);
        setTimeout(() => draw(id), AFTER_MS);
        return true;
    };
    const end = (id) => {
        const state = stateOf(id);
        state.waiting = Math.max(0, state.waiting - 1);
        if (state.waiting) return;
        state.leaving = setTimeout(() => {
            state.dimmed = false;
            clearInterval(state.timer);
            state.timer = 0;
            draw(id);
        }, LINGER_MS);
    };

    const regionsOf = (asked) => {
        const outputs = [asked.outputs].flat(3).filter(Boolean), changed = (asked.changedPropIds || []).map((one) =>
            one.slice(0, one.lastIndexOf(".")));
        const outdated = new Set();
        for (const { id } of outputs)
            for (const rule of RULES) {
                if (rule.type ? typeof id !== "object" || id.type !== rule.type : id !== rule.output) continue;
                if (rule.by && !changed.some((one) => rule.by.includes(one))) continue;
                if (rule.notBy && changed.every((one) => rule.notBy.includes(one))) continue;
                for (const place of rule.regions || [idOf(id)])
                    if (!rule.goesOn || stateOf(place).dimmed || stateOf(place).waiting) outdated.add(place);
            }
        return changed.length ? [...outdated] : [];
    };
    const read = (body) => { try { return regionsOf(JSON.parse(body)); } catch { return []; } };

    window.calibroscopeStream.aroundCallbacks(async (ask, _, body) => {
        const begun = typeof body === "string" ? read(body).filter(begin) : [];
        if (!begun.length) return ask();
        try {
            const answer = await ask();
            answer.clone().text().catch(() => null).finally(() => begun.forEach(end));
            return answer;
        } catch (error) {
            begun.forEach(end);
            throw error;
        }
    });

    return {
        // Regions that stay as they are until a person asks anew: a sentence says for what; none where they are right.
        settings(ids, sentence) {
            for (const id of ids) {
                stateOf(id).sentence = sentence;
                draw(id);
            }
        },
        lab,
    };
})();
