// Scales of the atlas's axes, and what a scale leaves out: the rules of app/figures/scales.py and app/figures/scatter.py.
window.calibroscopeAtlasScales = (() => {
    const FEW_TICKS = 5, SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹";

    const { count } = window.calibroscopeFormat;

    // Signed logarithm: sign(v) · log10(1 + |v| / t), close to linear within ±t. t is a power of ten taken from the data.
    const threshold = (values) => {
        const sizes = values.filter((value) => value).map(Math.abs).toSorted((a, b) => a - b);
        return sizes.length ? 10 ** Math.max(-300, Math.floor(Math.log10(sizes[Math.floor(0.1 * (sizes.length - 1))]))) : 1;
    };
    const placed = (value, within) => Math.sign(value) * Math.log10(1 + Math.abs(value) / within);
    const powers = (within, far) => {
        const first = Math.round(Math.log10(within)), last = far >= within ? Math.floor(Math.log10(far)) : first - 1;
        const step = Math.max(1, Math.ceil((last - first + 1) / FEW_TICKS)), chosen = [];
        for (let power = last; power >= first; power -= step) chosen.unshift(10 ** power);
        return chosen;
    };
    const ticks = (values, within) => {
        const above = powers(within, Math.max(0, ...values)), below = powers(within, Math.max(0, ...values.map((one) => -one)));
        return [...below.map((power) => -power).toReversed(), 0, ...above];
    };
    const exponent = (value) => String(Math.round(Math.log10(Math.abs(value)))).replace("-", "−");
    const tickLabel = (value) => (value === 0 ? "0" : (value < 0 ? "−" : "") + "10<sup>" + exponent(value) + "</sup>");
    const inText = (value) => "10" + [...exponent(value)].map((one) => (one === "−" ? "⁻" : SUPERSCRIPT[one])).join("");

    // How values are placed on an axis, what the axis is for Plotly, and what must be said of it.
    const axis = (values, scale) => {
        if (scale !== "signed") return { place: (value) => value, layout: { type: scale === "log" ? "log" : "linear" }, within: null };
        const within = threshold(values), named = ticks(values, within);
        return { place: (value) => placed(value, within), within: inText(within),
            layout: { type: "linear", tickmode: "array", tickvals: named.map((value) => placed(value, within)),
                ticktext: named.map(tickLabel) } };
    };

    // The rows that have all that a view needs, and the others counted by their first reason.
    const drawable = (data, needed, scales, label) => {
        const missing = new Map(), low = new Map(), rows = [];
        const add = (counts, name) => counts.set(name, (counts.get(name) || 0) + 1);
        data.neuron.forEach((_, row) => {
            const lacks = needed.find((name) => data.columns[name][row] === null);
            const below = lacks === undefined && Object.keys(scales).find((name) => scales[name] === "log" && data.columns[name][row] <= 0);
            if (lacks !== undefined) add(missing, lacks);
            else if (below) add(low, below);
            else rows.push(row);
        });
        return { rows, words: notDrawn(data.neuron.length, missing, low, label) };
    };

    const notDrawn = (of, missing, low, label) => {
        const many = (number) => count(number) + (number === 1 ? " has" : " have");
        const reasons = [...missing].map(([name, number]) => many(number) + " no value of " + label(name)).concat(
            [...low].map(([name, number]) => many(number) + " a value of 0 or below in " + label(name) +
                ", which a logarithmic axis cannot show"));
        const left = [...missing.values(), ...low.values()].reduce((sum, one) => sum + one, 0);
        if (!left) return "";
        return count(left) + " of " + count(of) + (left === 1 ? " is" : " are") + " not drawn: " +
            reasons.join("; ") + "." + (low.size ? " Choose the scale ± log or linear to see them." : "");
    };

    // A colour bar's ticks; its ends say where values beyond them share a colour.
    const barTicks = (low, high, values, words) => {
        const tickvals = [0, 1, 2, 3, 4].map((place) => low + (place * (high - low)) / 4);
        const cut = [values.some((value) => value < low), values.some((value) => value > high)];
        const ticktext = tickvals.map((value, place) =>
            (place === 0 && cut[0] ? "≤ " : place === 4 && cut[1] ? "≥ " : "") + words(value));
        return high > low ? { tickmode: "array", tickvals, ticktext } : {};
    };

    return { axis, drawable, barTicks };
})();
