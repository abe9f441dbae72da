// The neuron page: a threshold on the histogram, and keys that lead to the neighbours.
window.calibroscopeNeuron = (() => {
    const { TYPING, byId, unchanged } = window.calibroscopeDom;
    const { number, count } = window.calibroscopeFormat;

    // Thresholds are the bins' edges, so that the share at or above one is exact.
    const threshold = (place, data, figure) => {
        if (!data || !figure || place === undefined || place === null) {
            return [unchanged(), unchanged()];
        }
        const sum = (counts) => counts.reduce((total, one) => total + one, 0);
        const at = data.edges[place], all = sum(data.counts), above = sum(data.counts.slice(place));
        const shapes = (figure.layout.shapes || []).map((shape) =>
            shape.name === "threshold" ? { ...shape, x0: at, x1: at } : shape);
        const share = (100 * above / all).toFixed(above && above / all < 0.01 ? 3 : 1);
        const words = "Threshold " + number(at) + ": " + count(above) + " of " + count(all) + " positions (" + share +
            " %) are at or above it.";
        return [{ ...figure, layout: { ...figure.layout, shapes } }, words];
    };

    const keys = { ArrowLeft: "neuron-previous", "[": "neuron-previous", ArrowRight: "neuron-next", "]": "neuron-next" };
    // What takes the keys itself: fields, sliders, radio buttons, tokens that answer to arrows.
    const taken = TYPING + ", [role=slider], [role=radiogroup], [role=listbox], [role=grid]";
    document.addEventListener("keydown", (event) => {
        if (!(event.key in keys) || event.defaultPrevented || event.metaKey || event.shiftKey) return;
        if (event.key.startsWith("Arrow") && (event.ctrlKey || event.altKey)) return;  // the browser's own Back
        if (event.target.closest && event.target.closest(taken)) return;
        const link = byId(keys[event.key]);
        if (link) {
            event.preventDefault();
            link.click();
        }
    });

    return { threshold };
})();
