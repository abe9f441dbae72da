// The atlas in the browser: hides, selects and marks points; keeps table, figure and address in step.
window.calibroscopeAtlas = (() => {
    const MOST_PICKED = 50;  // as in app/pages/atlas/state.py
    const CLASSES = 4;
    const MARK = "#CC79A7";  // a colour that means nothing else, seen on light and dark
    const WIDTH = 1100, HEIGHT = 750, NARROW = 560;
    const SETTLED_MS = 3000;  // controls agree with the address long before
    const unchanged = () => window.dash_clientside.no_update;
    const set = (id, props) => window.dash_clientside.set_props(id, props);
    const trigger = () => window.dash_clientside.callback_context.triggered_id;
    const plot = () => document.querySelector("#atlas-graph .js-plotly-plot");
    const state = { shown: null, picked: new Set(), classOf: new Map(), pins: new Set(), written: null, axes: {}, wanted: null,
        data: null, view: "", base: null, errors: false, columns: [], model: null };

    const grid = (then) => {
        if (document.getElementById("atlas-table")) window.dash_ag_grid.getApiAsync("atlas-table").then(then);
    };

    // Numbers as app/notation/numbers.py writes them.
    const plain = (value) => {
        const size = Math.abs(value);
        let text;
        if (size !== 0 && (size < 1e-4 || size >= 1e6)) text = exponent(value, 2);
        else if (size > 0 && size < 0.1) text = value.toFixed(2 - Math.floor(Math.log10(size)));
        else if (size >= 1000) text = Math.round(value).toLocaleString("en");
        else text = value.toFixed(size >= 100 ? 1 : size < 10 ? 3 : 2);
        return text.replaceAll("-", "−");
    };
    const exponent = (value, digits) => value.toExponential(digits).replace(/e([+-])(\d)$/, "e$10$2");
    const number = (value, unit, error) => {
        if (value === null || value === undefined) return "—";
        const behind = unit ? " " + unit : "";
        if (!(error > 0)) return plain(value) + behind;
        const digits = Math.max(0, 1 - Math.floor(Math.log10(error)));
        const both = digits > 6 ? exponent(value, 2) + " ± " + exponent(error, 0)
            : value.toFixed(digits) + " ± " + error.toFixed(digits);
        return both.replaceAll("-", "−") + behind;
    };

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
    const ends = (values) => {
        const ordered = Float64Array.from(values).sort(), last = ordered.length - 1;
        return last < 0 ? [0, 1] : [ordered[Math.floor(0.01 * last)], ordered[Math.floor(0.99 * last)]];
    };

    // Neurons that the paper's own criterion marks are filled with its colour, the others are grey whatever their class.
    const markedBy = (data, rows, kit) => ({ color: rows.map((row) => (data.paper[row] ? kit.mark.color : kit.mark.other)),
        size: rows.map((row) => (data.paper[row] ? 9 : 6)), opacity: rows.map((row) => (data.paper[row] ? 0.95 : 0.45)), line: { width: 0 } });

    // Chance lines and cuts of a metric across the figure, each with its name; a logarithmic axis has none at 0 or below.
    const limits = (data, name, which, scale, axis, kit) => (data.limits[name] || [])
        .filter((one) => scale !== "log" || one.value > 0).map((one) => {
            const at = axis.place(one.value), upright = which === "x";
            const ends = upright ? { x0: at, x1: at, y0: 0, y1: 1, yref: "paper" } : { y0: at, y1: at, x0: 0, x1: 1, xref: "paper" };
            return { type: "line", layer: "below", ...ends,
                line: { color: kit.limit.color, width: 1.5, dash: one.is_chance ? kit.limit.chance : kit.limit.cut },
                label: { text: one.label, textposition: upright ? "end" : "start", textangle: 0, xanchor: "left",
                    yanchor: upright ? "top" : "bottom", font: { size: 11, color: kit.limit.color } } };
        });

    // A figure of the run's columns: points of all neurons that have both coordinates, a trace a class.
    // On a telephone the 2 that stands for 2 · 10⁻³ would touch the 10⁻³ before it, and the two would read as 10⁻³².
    const draw = (data, x, y, colour, size, xScale, yScale, kit) => {
        const { axis, drawable, barTicks } = window.calibroscopeScales, columns = data.columns;
        const few = window.innerWidth < NARROW && xScale === "log" ? { nticks: 3 } : {};
        const byMark = colour === kit.mark.name, byClass = colour === "class" || (!byMark && !columns[colour]);
        const byMetric = !byClass && !byMark;
        const named = [...new Set([x, y, ...(byMetric ? [colour] : []), ...(size ? [size] : [])])];
        const label = (name) => kit.metrics[name].label;
        const needed = byMetric ? [x, y, colour] : [x, y];
        const { rows: usable, words: undrawn } = drawable(data, needed, { [x]: xScale, [y]: yScale }, label);
        const across = axis(usable.map((row) => columns[x][row]), xScale), up = axis(usable.map((row) => columns[y][row]), yScale);
        const titled = (name, which, own) => ({ ...kit.layout[which + "axis"], title: { text: kit.metrics[name].title }, ...own.layout });
        const layout = { ...kit.layout, uirevision: [x, y, xScale, yScale].join("|"),
            xaxis: { ...titled(x, "x", across), ...few }, yaxis: titled(y, "y", up),
            shapes: [...limits(data, x, "x", xScale, across, kit), ...limits(data, y, "y", yScale, up, kit)] };
        const signed = [[x, across], [y, up]].filter(([, own]) => own.within !== null)
            .map(([name, own]) => label(name) + " is linear within ±" + own.within + " and logarithmic beyond.");
        const note = [undrawn, ...signed].filter(Boolean).join(" ");
        const said = named.map((name) => ["<br>" + kit.metrics[name].label + ": ", inWords(data, name, kit.metrics[name].unit)]);
        const hover = (row) => said.reduce((text, [label, words]) => text + label + words[row],
            "<b>" + data.neuron[row] + "</b> · " + data.labels[data.class[row]] + (data.paper[row] ? " · " + kit.mark.label : ""));
        const most = size ? ends(usable.map((row) => Math.abs(columns[size][row] || 0)))[1] : 0;
        const diameter = (row) => 3 + (most > 0 ? 17 * Math.sqrt(Math.min(1, Math.abs(columns[size][row] || 0) / most)) : 0);
        const points = (rows) => ({ type: "scattergl", mode: "markers", x: rows.map((row) => across.place(columns[x][row])),
            y: rows.map((row) => up.place(columns[y][row])), customdata: rows.map((row) => data.neuron[row]), text: rows.map(hover),
            hovertemplate: "%{text}<extra></extra>" });
        const traces = [];
        for (const own of kit.classes) {
            const rows = usable.filter((row) => data.class[row] === own.name);
            if (!rows.length) continue;
            const marker = byClass ? { ...own.marker } : byMark ? markedBy(data, rows, kit)
                : { color: rows.map((row) => columns[colour][row]), coloraxis: "coloraxis", size: 7, opacity: 1 };
            if (size) marker.size = rows.map(diameter);
            // Where colour is a metric, a legend of classes would show no colour of theirs; the ring below has one.
            traces.push({ ...points(rows), marker, meta: own.name, showlegend: byClass, name: own.label + "s (" + rows.length + ")" });
            if (!byClass && own.name === "entropy")
                traces.push({ ...points(rows), marker: kit.ring, meta: own.name, name: own.label + "s (" + rows.length + ")" });
        }
        if (byMetric) {
            const shades = usable.map((row) => columns[colour][row]), [cmin, cmax] = ends(shades), { colorbar } = kit.coloraxis;
            layout.coloraxis = { ...kit.coloraxis, cmin, cmax,
                colorbar: { ...colorbar, title: { ...colorbar.title, text: kit.metrics[colour].title },
                    ...barTicks(cmin, cmax, shades, (value) => plain(value)) } };
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
        const own = window.calibroscopePins.read(pins)[model] || [];
        const found = marks || {};
        data.push(
            ...marked(base, own, { symbol: "diamond-open", size: 13, line: { width: 2 } },
                { mode: "markers+text", textposition: "top center", name: "Pinned" }),
            ...marked(base, rows, { symbol: "circle-open", size: 16, line: { width: 2.5 } }, { name: "Ticked" }),
            ...marked(base, found.up || [], { symbol: "triangle-up", size: 11 }, { name: "Promote the token" }),
            ...marked(base, found.down || [], { symbol: "triangle-down", size: 11 }, { name: "Suppress the token" }));
        // The outline of a selection goes: what is selected stays, and may be on other axes by now.
        const drawn = data.some((trace) => trace.visible !== false && trace.meta);
        const annotations = drawn || !base.data.length ? [] : [{ text: "All classes are hidden: choose one above.",
            xref: "paper", yref: "paper", x: 0.5, y: 0.5, showarrow: false, font: { size: 15 } }];
        const layout = { ...base.layout, annotations, dragmode: drag || "pan", showlegend: false, selections: [],
            selectionrevision: Math.random() };
        return { data, layout };
    };

    // Points are placed anew only when the view changes; what is hidden, selected or marked is drawn over them.
    const figure = (data, x, y, colour, size, xScale, yScale, shown, picked, ticked, marks, pins, drag, model, kit) => {
        if (!data || !x || !y) return unchanged();
        const view = JSON.stringify([x, y, colour, size, xScale, yScale]);
        if (state.base === null || state.data !== data || state.view !== view)
            Object.assign(state, { data, view, base: draw(data, x, y, colour, size, xScale, yScale, kit) });
        set("atlas-undrawn", { children: state.base.note });
        const next = compose(state.base, shown, picked, ticked, marks, pins, drag, model), drawn = plot();
        if (!drawn || !drawn.data || !drawn.data.length) return next;
        // Through the component, each change would be copied and announced on its way: half of what a reader waits for.
        // The component then knows an older figure only, and would draw that one at every zoom, move or selection.
        drawn.removeAllListeners("plotly_relayout");
        // WebGL points know where they are on the screen, which a selection asks, only if drawn while selecting is on;
        // `react` does not draw them anew when nothing else has changed.
        if (drawn.layout.dragmode !== next.layout.dragmode) window.Plotly.relayout(drawn, { dragmode: next.layout.dragmode });
        window.Plotly.react(drawn, next.data, next.layout);
        return unchanged();
    };

    const marks = { true: "marked", false: "" };
    // The table: rows from columns, and which of them pass.
    const rows = (data) => {
        if (!data) return unchanged();
        const names = Object.keys(data.columns);
        return data.neuron.map((neuron, i) => {
            const row = { neuron, class: data.labels[data.class[i]], paper_criterion: marks[data.paper[i]] ?? "—" };
            for (const name of names) row[name] = data.columns[name][i];
            return row;
        });
    };

    const filter = (data, shown, picked, ticked) => {
        if (data) state.classOf = new Map(data.neuron.map((neuron, i) => [neuron, data.class[i]]));
        state.shown = new Set(shown || []);
        state.picked = new Set((picked || []).filter((name) => !data || state.classOf.has(name)));
        grid((api) => api.onFilterChanged());
        const count = state.picked.size, rows = Array.isArray(ticked) ? ticked.length : 0;
        const words = [count ? count.toLocaleString("en") + (count === 1 ? " neuron" : " neurons") + " selected" : "",
            rows ? rows.toLocaleString("en") + " ticked" : ""].filter(Boolean).join(", ");
        return [!count && !rows, words];
    };

    const pick = (selected) => {
        const keep = unchanged();
        if (trigger() === "atlas-clear") return [[], null, []];
        if (!selected) return [[], keep, keep];  // a double click
        // Plotly reports an empty selection as well when `compose` takes its outline away.
        if (!selected.points || !selected.points.length) return [keep, keep, keep];
        const names = selected.points.map((point) => point.customdata).filter((name) => typeof name === "string");
        return [[...new Set(names)], keep, keep];
    };

    // Presets and free axes.
    const choosePreset = (clicks, table) => {
        const keep = unchanged(), by = trigger();
        if (!by || !clicks.some(Boolean)) return [keep, keep, keep, keep, keep, keep, keep];
        const preset = table.find((one) => one.name === by.name);
        return [preset.x, preset.y, preset.colour, preset.size || null, preset.xscale, preset.yscale, preset.name];
    };

    const freeAxes = (x, y, chosen, table) => {
        const preset = table.find((one) => one.name === chosen);
        return preset && (preset.x !== x || preset.y !== y) ? null : unchanged();
    };

    const markPreset = (chosen, x, y, table, ids) => {
        const here = table.find((one) => one.name === chosen) || table.find((one) => one.x === x && one.y === y);
        return ids.map((id) => String(Boolean(here) && here.name === id.name));
    };

    // The table's tools.
    const chooseColumns = (names) => {
        grid((api) => {
            const wanted = new Set(names), fields = api.getColumns().map((column) => column.getColId());
            const metrics = fields.filter((field) => !["neuron", "pin", "class", "paper_criterion"].includes(field) && !field.startsWith("ag-"));
            api.setColumnsVisible(metrics.filter((field) => wanted.has(field)), true);
            api.setColumnsVisible(metrics.filter((field) => !wanted.has(field)), false);
        });
        return unchanged();
    };

    const showErrors = (checked) => {
        state.errors = Boolean(checked);
        grid((api) => api.refreshCells({ force: true }));
        return unchanged();
    };

    // Every metric that is shown brings its standard error along, whether the table writes it or not.
    const withErrors = (api, fields) => fields.flatMap((field) => (api.getColumn(field + "_se") ? [field, field + "_se"] : [field]));

    const exportRows = (clicks, model, run) => {
        if (clicks) {
            grid((api) => {
                const columnKeys = withErrors(api, api.getAllDisplayedColumns().map((column) => column.getColId())
                    .filter((field) => field !== "pin" && !field.startsWith("ag-")));
                api.exportDataAsCsv({ columnKeys, fileName: model + "-run" + run + "-neurons.csv",
                    processCellCallback: (cell) => (cell.value === null || cell.value === undefined ? "" : cell.value),
                    processHeaderCallback: (header) => header.column.getColId() });
            });
        }
        return unchanged();
    };

    // What goes beside the CSV: where it is, and a name for the file like the CSV's own.
    const aboutRun = (run) => run ? ["/api/v1/runs/" + run, "run" + run + ".json"] : ["", ""];

    const pinRows = (clicks, cell, ticked, model, pins) => {
        const by = trigger();
        if (!model) return unchanged();
        if (by === "atlas-pin-ticked" && ticked && ticked.length)
            return window.calibroscopePins.added(pins, model, ticked.map((row) => row.neuron));
        if (by === "atlas-table" && cell && cell.colId === "pin")
            return window.calibroscopePins.toggled(pins, model, cell.rowId);
        return unchanged();
    };

    const showPins = (pins, model) => {
        state.pins = new Set(window.calibroscopePins.read(pins)[model] || []);
        grid((api) => api.refreshCells({ columns: ["pin"], force: true }));
        return unchanged();
    };

    // From the table to the figure: the point under the row that is hovered.
    const point = (name) => {
        const drawn = plot();
        if (!drawn || !drawn.data) return;
        const curve = drawn.data.findIndex((trace) => trace.visible !== false && (trace.customdata || []).includes(name));
        if (curve < 0) return;
        const trace = drawn.data[curve], place = trace.customdata.indexOf(name);
        // By its values: a WebGL trace does not find a point by its number.
        window.Plotly.Fx.hover(drawn, [{ curveNumber: curve, xval: trace.x[place], yval: trace.y[place] }]);
    };
    const unpoint = () => plot() && plot().data && window.Plotly.Fx.unhover(plot());

    // A figure to take away: on white, with its legend, every point a vector.
    const LIGHT = { linecolor: "#5b636d", tickcolor: "#5b636d", gridcolor: "#dfe3e8", color: "#1d2126" };
    const takenAway = (drawn) => ({
        data: drawn.data.map((trace) => ({ ...trace, type: trace.type === "scattergl" ? "scatter" : trace.type,
            showlegend: trace.hoverinfo === "skip" ? true : trace.showlegend })),
        layout: { ...drawn.layout, paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff", showlegend: true, width: WIDTH,
            height: HEIGHT, font: { ...drawn.layout.font, color: "#1d2126" },
            xaxis: { ...drawn.layout.xaxis, ...LIGHT }, yaxis: { ...drawn.layout.yaxis, ...LIGHT } },
    });

    const save = (clicks, model, run, x, y) => {
        const by = trigger(), drawn = plot();
        if (by && drawn && clicks.some(Boolean)) {
            window.Plotly.downloadImage(takenAway(drawn), { format: by.format, width: WIDTH, height: HEIGHT,
                scale: by.format === "png" ? 2 : 1, filename: [model, "run" + run, y, "by", x].join("-") });
        }
        return unchanged();
    };

    // The address follows the page. Another model, run, preset or axis is a step to come back to; the rest is not.
    const sortOf = (columns) => {
        const by = (columns || []).find((column) => column.sort);
        return by ? (by.sort === "desc" ? "-" : "") + by.colId : "";
    };

    const sameSet = (a, b) => a.length === b.length && a.every((name) => b.includes(name));

    const remember = (model, run, preset, x, y, colour, size, xScale, yScale, shown, picked, columns, chosen, token, errors, kit) => {
        if (window.location.pathname !== "/" || !model || !run) return unchanged();
        state.columns = kit.columns;
        const query = new URLSearchParams({ model, run, ...(preset ? { preset } : {}), x, y, colour,
            ...(size ? { size } : {}), xscale: xScale, yscale: yScale });
        const view = query.toString();
        if (bounced(viewOf(query))) return unchanged();
        state.axes = viewOf(query);
        const hidden = ["entropy", "token_frequency", "prediction", "plain"].filter((name) => !(shown || []).includes(name));
        if (hidden.length) query.set("hide", hidden.join(","));
        if (picked && picked.length && picked.length <= MOST_PICKED) query.set("pick", picked.join(","));
        const sort = columns ? sortOf(columns) : new URLSearchParams(window.location.search).get("sort");
        if (sort && sort !== "-total_effect") query.set("sort", sort);
        if (chosen && !sameSet(chosen, kit.columns)) query.set("columns", chosen.join(","));
        if (errors) query.set("errors", "on");
        if (token !== null && token !== undefined) query.set("token", token);
        const address = "/?" + query.toString().replaceAll("%2C", ",");
        const step = state.written !== null && state.written !== view;
        state.written = view;
        if (address === window.location.pathname + window.location.search) return unchanged();
        window.history[step ? "pushState" : "replaceState"](window.history.state, "", address);
        return unchanged();
    };

    const AXES = ["x", "y", "colour", "size", "xscale", "yscale"];
    const viewOf = (asked) => Object.fromEntries(AXES.map((name) =>
        [name, asked.get(name) || (name.endsWith("scale") ? "linear" : "")]));
    const setView = (view, preset) => {
        for (const name of AXES) set("atlas-" + name, { value: view[name] || null });
        set("atlas-chosen", { data: preset });
    };
    // A select that has not drawn its last value yet writes that value back over a newer one: it is told again.
    const bounced = (now) => {
        const wanted = state.wanted;
        if (!wanted || !wanted.tries || performance.now() > wanted.until) return false;
        const others = AXES.filter((name) => now[name] !== wanted.view[name]);
        if (!others.length || others.some((name) => now[name] !== wanted.left[name])) return false;
        wanted.tries -= 1;
        setView(wanted.view, wanted.preset);
        return true;
    };

    // Back and forward within the page set the controls again. Dash would build the whole page anew.
    window.addEventListener("popstate", (event) => {
        if (window.location.pathname !== "/" || !document.getElementById("atlas-x")) {
            state.written = null;
            return;
        }
        event.stopImmediatePropagation();
        const asked = new URLSearchParams(window.location.search);
        const list = (name) => (asked.get(name) || "").split(",").filter(Boolean);
        const hidden = list("hide"), sort = asked.get("sort") || "-total_effect";
        state.written = null;
        state.wanted = { view: viewOf(asked), preset: asked.get("preset"), left: state.axes, tries: 3,
            until: performance.now() + SETTLED_MS };
        set("atlas-shown", { value: ["entropy", "token_frequency", "prediction", "plain"].filter((name) => !hidden.includes(name)) });
        set("atlas-picked", { data: list("pick") });
        set("atlas-token", { data: asked.get("token") === null ? null : Number(asked.get("token")) });
        set("atlas-columns", { value: asked.get("columns") ? list("columns") : state.columns });
        set("atlas-errors", { checked: asked.get("errors") === "on" });
        setView(state.wanted.view, state.wanted.preset);
        if (asked.get("run")) set("atlas-run", { value: asked.get("run") });
        if (asked.get("model")) set("atlas-model", { value: asked.get("model") });
        grid((api) => api.applyColumnState({
            state: [{ colId: sort.replace("-", ""), sort: sort.startsWith("-") ? "desc" : "asc" }], defaultState: { sort: null },
        }));
    });

    // A token is chosen by its button, or by Enter: the best match. Another model's tokens have other numbers.
    const chooseToken = (clicks, submitted, typed, model, ids) => {
        const by = trigger();
        const before = state.model;
        state.model = model;
        if (by === "atlas-model") return before && model && before !== model ? null : unchanged();
        if (by === "atlas-token-query" && !typed) return null;
        if (by && by.token !== undefined) return clicks.some(Boolean) ? by.token : unchanged();
        const entered = window.dash_clientside.callback_context.triggered.some((one) => one.prop_id.endsWith(".n_submit"));
        return entered && ids.length ? ids[0].token : unchanged();
    };
    const markToken = (token, ids) => ids.map((id) => String(id.token === token));

    const functions = window.dashAgGridFunctions = window.dashAgGridFunctions || {};
    functions.calibroscopeAtlasFilters = () => state.picked.size > 0 || (state.shown !== null && state.shown.size < CLASSES);
    functions.calibroscopeAtlasPasses = (node) => {
        const name = node.data.neuron;
        return (!state.picked.size || state.picked.has(name)) && (!state.shown || state.shown.has(state.classOf.get(name)));
    };
    functions.calibroscopeAtlasNumber = (cell) =>
        number(cell.value, "", state.errors && cell.data ? cell.data[cell.colDef.field + "_se"] : null);
    functions.calibroscopeAtlasPin = (name) => (state.pins.has(name) ? "★" : "☆");
    functions.calibroscopeAtlasPoint = (cell) => cell.data && point(cell.data.neuron);
    functions.calibroscopeAtlasUnpoint = () => unpoint();
    functions.calibroscopeAtlasFocus = (cell) => {
        const row = cell.rowIndex === null ? null : cell.api.getDisplayedRowAtIndex(cell.rowIndex);
        if (row && row.data) point(row.data.neuron);
    };
    functions.calibroscopeAtlasKey = (cell) => {
        const column = cell.column && cell.column.getColId();
        if (cell.event && cell.event.key === "Enter" && ["neuron", "pin"].includes(column))
            set("atlas-table", { cellClicked: { colId: column, rowId: cell.node.id, timestamp: Date.now() } });
    };
    functions.calibroscopeAtlasCount = (event) => {
        const place = document.getElementById("atlas-count");
        const shown = event.api.getDisplayedRowCount(), all = state.classOf.size;
        if (place) place.textContent = shown.toLocaleString("en") + " of " + Math.max(all, shown).toLocaleString("en") + " shown";
    };

    return { figure, rows, filter, pick, choosePreset, freeAxes, markPreset, chooseColumns, exportRows, aboutRun, pinRows, showPins,
        showErrors, save, remember, chooseToken, markToken };
})();
