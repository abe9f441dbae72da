// The atlas's figure as plain data: points from a run's columns, what was chosen drawn over them, and a copy to take away.
window.calibroscopeAtlasFigure = (() => {
    const MARK = "#CC79A7";  // a colour that means nothing else, seen on light and dark
    const NARROW = 560;
    const { number, count } = window.calibroscopeFormat;
    const plot = () => document.querySelector("#atlas-graph .js-plotly-plot");

    // A column's numbers in words: written once, since most of them stay when an axis changes.
    const written = new WeakMap();
    const inWords = (data, name, unit) => {
        const column = data.columns[name];
        if (!written.has(column)) {
            const errors = data.columns[name + "_se"] || [];
            written.set(column, column.map((value, row) => number(value, unit, errors[row])));
        }
        return written.get(column);
    };

    // The 1st and 99th percentile: a few extreme neurons would leave all others one colour, or one size.
    const percentiles = (values) => {
        const ordered = Float64Array.from(values).toSorted(), last = ordered.length - 1;
        return last < 0 ? [0, 1] : [ordered[Math.floor(0.01 * last)], ordered[Math.floor(0.99 * last)]];
    };

    // Neurons that the paper's own criterion marks are filled with its colour, the others are grey whatever their class.
    const markedBy = (data, rows, kit) => ({ color: rows.map((row) => (data.paper[row] ? kit.mark.color : kit.mark.other)),
        size: rows.map((row) => (data.paper[row] ? 9 : 6)), opacity: rows.map((row) => (data.paper[row] ? 0.95 : 0.45)), line: { width: 0 } });

    // Chance lines and cuts of a metric across the figure, each with its name; a logarithmic axis has none at 0 or below.
    const limits = (data, name, which, scale, axis, kit) => (data.limits[name] || [])
        .filter((one) => scale !== "log" || one.value > 0).map((one) => {
            const at = axis.place(one.value), upright = which === "x";
            const line = upright ? { x0: at, x1: at, y0: 0, y1: 1, yref: "paper" } : { y0: at, y1: at, x0: 0, x1: 1, xref: "paper" };
            return { type: "line", layer: "below", ...line,
                line: { color: kit.limit.color, width: 1.5, dash: one.is_chance ? kit.limit.chance : kit.limit.cut },
                label: { text: one.label, textposition: upright ? "end" : "start", textangle: 0, xanchor: "left",
                    yanchor: upright ? "top" : "bottom", font: { size: 11, color: kit.limit.color } } };
        });

    // A figure of the run's columns: points of all neurons that have both coordinates, a trace a class.
    // On a telephone the 2 that stands for 2 · 10⁻³ would touch the 10⁻³ before it, and the two would read as 10⁻³².
    const draw = (data, x, y, colour, size, xScale, yScale, kit) => {
        const { axis, drawable, barTicks } = window.calibroscopeAtlasScales, columns = data.columns;
        const few = window.innerWidth < NARROW && xScale === "log" ? { nticks: 3 } : {};
        const byMark = colour === kit.mark.name, byClass = colour === "class" || (!byMark && !columns[colour]);
        const byMetric = !byClass && !byMark;
        const named = [...new Set([x, y, ...(byMetric ? [colour] : []), ...(size ? [size] : [])])];
        const label = (name) => kit.metrics[name].label;
        const needed = byMetric ? [x, y, colour] : [x, y];
        const { rows: usable, words: undrawn } = drawable(data, needed, { [x]: xScale, [y]: yScale }, label);
        const across = axis(usable.map((row) => columns[x][row]), xScale), up = axis(usable.map((row) => columns[y][row]), yScale);
        const titled = (name, which, scaled) => ({ ...kit.layout[which + "axis"], title: { text: kit.metrics[name].title }, ...scaled.layout });
        const layout = { ...kit.layout, uirevision: [x, y, xScale, yScale].join("|"),
            xaxis: { ...titled(x, "x", across), ...few }, yaxis: titled(y, "y", up),
            shapes: [...limits(data, x, "x", xScale, across, kit), ...limits(data, y, "y", yScale, up, kit)] };
        const signed = [[x, across], [y, up]].filter(([, scaled]) => scaled.within !== null)
            .map(([name, { within }]) => label(name) + " is linear within ±" + within + " and logarithmic beyond.");
        const note = [undrawn, ...signed].filter(Boolean).join(" ");
        const lines = named.map((name) => ["<br>" + label(name) + ": ", inWords(data, name, kit.metrics[name].unit)]);
        const hover = (row) => lines.reduce((text, [what, words]) => text + what + words[row],
            "<b>" + data.neuron[row] + "</b> · " + data.labels[data.class[row]] + (data.paper[row] ? " · " + kit.mark.label : ""));
        const most = size ? percentiles(usable.map((row) => Math.abs(columns[size][row] || 0)))[1] : 0;
        const diameter = (row) => 3 + (most > 0 ? 17 * Math.sqrt(Math.min(1, Math.abs(columns[size][row] || 0) / most)) : 0);
        const points = (rows) => ({ type: "scattergl", mode: "markers", x: rows.map((row) => across.place(columns[x][row])),
            y: rows.map((row) => up.place(columns[y][row])), customdata: rows.map((row) => data.neuron[row]), text: rows.map(hover),
            hovertemplate: "%{text}<extra></extra>" });
        const traces = [];
        for (const { name, label: singular, marker: plain } of kit.classes) {
            const rows = usable.filter((row) => data.class[row] === name);
            if (!rows.length) continue;
            const legend = singular + "s (" + count(rows.length) + ")";
            const marker = byClass ? { ...plain } : byMark ? markedBy(data, rows, kit)
                : { color: rows.map((row) => columns[colour][row]), coloraxis: "coloraxis", size: 7, opacity: 1 };
            if (size) marker.size = rows.map(diameter);
            // Where colour is a metric, a legend of classes would show no colour of theirs; the ring below has one.
            traces.push({ ...points(rows), marker, meta: name, showlegend: byClass, name: legend });
            if (!byClass && name === "entropy") traces.push({ ...points(rows), marker: kit.ring, meta: name, name: legend });
        }
        if (byMetric) {
            const shades = usable.map((row) => columns[colour][row]), [cmin, cmax] = percentiles(shades), { colorbar } = kit.coloraxis;
            layout.coloraxis = { ...kit.coloraxis, cmin, cmax,
                colorbar: { ...colorbar, title: { ...colorbar.title, text: kit.metrics[colour].title },
                    ...barTicks(cmin, cmax, shades, (value) => number(value)) } };
        }
        return { data: traces, layout, note };
    };

    // The figure from what was drawn and from what was chosen since.
    const marked = (base, names, marker, more) => {
        const wanted = new Set(names), x = [], y = [], customdata = [];
        const seen = new Set();
        for (const trace of base.data) {
            (trace.customdata || []).forEach((name, i) => {
                if (!wanted.has(name) || seen.has(name)) return;
                seen.add(name);
                x.push(trace.x[i]);
                y.push(trace.y[i]);
                customdata.push(name);
            });
        }
        if (!x.length) return [];
        // Plain points go over the others only in WebGL; labels take the page's colour only in SVG.
        return [{ type: more && more.mode ? "scatter" : "scattergl", mode: "markers", x, y, customdata, hoverinfo: "skip", showlegend: false,
            cliponaxis: false, marker: { color: MARK, ...marker }, ...more, ...(more && more.mode ? { text: customdata } : {}) }];
    };

    const compose = (base, shown, picked, ticked, marks, pins, drag, model) => {
        const visible = new Set(shown || []);
        const known = new Set(base.data.flatMap((trace) => trace.customdata || []));
        const chosen = new Set((picked || []).filter((name) => known.has(name)));
        const data = base.data.map((trace) => {
            const drawn = { ...trace, visible: visible.has(trace.meta) };
            if (chosen.size && trace.marker.symbol !== "circle-open") {
                drawn.selectedpoints = trace.customdata.flatMap((name, i) => (chosen.has(name) ? [i] : []));
                drawn.selected = { marker: { opacity: 1 } };
                drawn.unselected = { marker: { opacity: 0.12 } };
            }
            return drawn;
        });
        const rows = (Array.isArray(ticked) ? ticked : []).map((row) => row.neuron);
        const pinned = window.calibroscopePins.read(pins)[model] || [], pushed = marks || {};
        data.push(
            ...marked(base, pinned, { symbol: "diamond-open", size: 13, line: { width: 2 } },
                { mode: "markers+text", textposition: "top center", name: "Pinned" }),
            ...marked(base, rows, { symbol: "circle-open", size: 16, line: { width: 2.5 } }, { name: "Ticked" }),
            ...marked(base, pushed.up || [], { symbol: "triangle-up", size: 11 }, { name: "Promote the token" }),
            ...marked(base, pushed.down || [], { symbol: "triangle-down", size: 11 }, { name: "Suppress the token" }));
        // The outline of a selection goes: what is selected stays, and may be on other axes by now.
        const drawn = data.some((trace) => trace.visible !== false && trace.meta);
        const annotations = drawn || !base.data.length ? [] : [{ text: "All classes are hidden: choose one above.",
            xref: "paper", yref: "paper", x: 0.5, y: 0.5, showarrow: false, font: { size: 15 } }];
        const layout = { ...base.layout, annotations, dragmode: drag || "pan", showlegend: false, selections: [],
            selectionrevision: Math.random() };
        return { data, layout };
    };

    // A figure to take away: on white, with its legend, every point a vector.
    const LIGHT = { linecolor: "#5b636d", tickcolor: "#5b636d", gridcolor: "#dfe3e8", color: "#1d2126" };
    const takenAway = (drawn, width, height) => ({
        data: drawn.data.map((trace) => ({ ...trace, type: trace.type === "scattergl" ? "scatter" : trace.type,
            showlegend: trace.hoverinfo === "skip" ? true : trace.showlegend })),
        layout: { ...drawn.layout, paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff", showlegend: true, width,
            height, font: { ...drawn.layout.font, color: "#1d2126" },
            xaxis: { ...drawn.layout.xaxis, ...LIGHT }, yaxis: { ...drawn.layout.yaxis, ...LIGHT } },
    });

    return { plot, draw, compose, takenAway };
})();
