// The atlas in the browser: hides, selects and marks points; keeps table, figure and address in step.
window.calibroscopeAtlas = (() => {
    const MOST_PICKED = 50;  // as in app/pages/atlas/state.py
    const CLASSES = ["entropy", "token_frequency", "prediction", "plain"];
    const USUAL_SORT = "-total_effect";
    const WIDTH = 1100, HEIGHT = 750;
    const SETTLED_MS = 3000;  // controls agree with the address long before
    const { byId, set, unchanged, triggered, write } = window.calibroscopeDom;
    const { number, count } = window.calibroscopeFormat;
    const { join, show, parameters } = window.calibroscopeAddress;
    const plot = () => document.querySelector("#atlas-graph .js-plotly-plot");
    const state = { shown: null, picked: new Set(), classOf: new Map(), pins: new Set(), written: null, axes: {}, wanted: null,
        data: null, view: "", base: null, errors: false, columns: [], model: null };

    const grid = (then) => {
        if (byId("atlas-table")) window.dash_ag_grid.getApiAsync("atlas-table").then(then);
    };

    // Points are placed anew only when the view changes; what is hidden, selected or marked is drawn over them.
    const figure = (data, x, y, colour, size, xScale, yScale, shown, picked, ticked, marks, pins, drag, model, kit) => {
        if (!data || !x || !y) return unchanged();
        const { draw, compose } = window.calibroscopeAtlasFigure;
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

    const PAPER_MARKS = { true: "marked", false: "" };
    // The table: rows from columns, and which of them pass.
    const rows = (data) => {
        if (!data) return unchanged();
        const names = Object.keys(data.columns);
        return data.neuron.map((neuron, i) => {
            const row = { neuron, class: data.labels[data.class[i]], paper_criterion: PAPER_MARKS[data.paper[i]] ?? "—" };
            for (const name of names) row[name] = data.columns[name][i];
            return row;
        });
    };

    const filter = (data, shown, picked, ticked) => {
        if (data) state.classOf = new Map(data.neuron.map((neuron, i) => [neuron, data.class[i]]));
        state.shown = new Set(shown || []);
        state.picked = new Set((picked || []).filter((name) => !data || state.classOf.has(name)));
        grid((api) => api.onFilterChanged());
        const selected = state.picked.size, rowsTicked = Array.isArray(ticked) ? ticked.length : 0;
        const words = [selected ? count(selected) + (selected === 1 ? " neuron" : " neurons") + " selected" : "",
            rowsTicked ? count(rowsTicked) + " ticked" : ""].filter(Boolean).join(", ");
        return [!selected && !rowsTicked, words];
    };

    const pick = (selected) => {
        const keep = unchanged();
        if (triggered() === "atlas-clear") return [[], null, []];
        if (!selected) return [[], keep, keep];  // a double click
        // Plotly reports an empty selection as well when `compose` takes its outline away.
        if (!selected.points || !selected.points.length) return [keep, keep, keep];
        const names = selected.points.map((point) => point.customdata).filter((name) => typeof name === "string");
        return [[...new Set(names)], keep, keep];
    };

    // Presets and free axes.
    const choosePreset = (clicks, table) => {
        const keep = unchanged(), by = triggered();
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
        const by = triggered();
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

    const save = (clicks, model, run, x, y) => {
        const by = triggered(), drawn = plot();
        if (by && drawn && clicks.some(Boolean)) {
            window.Plotly.downloadImage(window.calibroscopeAtlasFigure.takenAway(drawn, WIDTH, HEIGHT), { format: by.format, width: WIDTH, height: HEIGHT,
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
        const hidden = CLASSES.filter((name) => !(shown || []).includes(name));
        if (hidden.length) query.set("hide", hidden.join(","));
        if (picked && picked.length && picked.length <= MOST_PICKED) query.set("pick", picked.join(","));
        const sort = columns ? sortOf(columns) : parameters().get("sort");
        if (sort && sort !== USUAL_SORT) query.set("sort", sort);
        if (chosen && !sameSet(chosen, kit.columns)) query.set("columns", chosen.join(","));
        if (errors) query.set("errors", "on");
        if (token !== null && token !== undefined) query.set("token", token);
        show(join("/", query), state.written !== null && state.written !== view);
        state.written = view;
        return unchanged();
    };

    const AXES = ["x", "y", "colour", "size", "xscale", "yscale"];
    const viewOf = (asked) => Object.fromEntries(AXES.map((name) =>
        [name, asked.get(name) || (name.endsWith("scale") ? "linear" : "")]));
    const setView = (view, preset) => {
        for (const name of AXES) set("atlas-" + name, { value: view[name] || null });
        set("atlas-chosen", { data: preset });
    };
    // A select that has not drawn its last value yet writes that value back over a newer one: it is set again.
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
        if (window.location.pathname !== "/" || !byId("atlas-x")) {
            state.written = null;
            return;
        }
        event.stopImmediatePropagation();
        const asked = parameters();
        const list = (name) => (asked.get(name) || "").split(",").filter(Boolean);
        const hidden = list("hide"), sort = asked.get("sort") || USUAL_SORT;
        state.written = null;
        state.wanted = { view: viewOf(asked), preset: asked.get("preset"), left: state.axes, tries: 3,
            until: performance.now() + SETTLED_MS };
        set("atlas-shown", { value: CLASSES.filter((name) => !hidden.includes(name)) });
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
        const by = triggered();
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
    functions.calibroscopeAtlasFilters = () => state.picked.size > 0 || (state.shown !== null && state.shown.size < CLASSES.length);
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
        const shown = event.api.getDisplayedRowCount();
        write("atlas-count", count(shown) + " of " + count(Math.max(state.classOf.size, shown)) + " shown");
    };

    return { figure, rows, filter, pick, choosePreset, freeAxes, markPreset, chooseColumns, exportRows, aboutRun, pinRows, showPins,
        showErrors, save, remember, chooseToken, markToken };
})();
