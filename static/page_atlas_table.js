// The atlas's table: rows from a run's columns, which of them pass, and its tools.
window.calibroscopeAtlasTable = (() => {
    const EVERY_CLASS = 4;
    const { byId, set, unchanged, triggered, write } = window.calibroscopeDom;
    const { number, count } = window.calibroscopeFormat;
    const state = { shown: null, picked: new Set(), classOf: new Map(), pins: new Set(), errors: false };

    const grid = (then) => {
        if (byId("atlas-table")) window.dash_ag_grid.getApiAsync("atlas-table").then(then);
    };

    const PAPER_MARKS = { true: "marked", false: "" };
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
        const drawn = window.calibroscopeAtlasFigure.plot();
        if (!drawn || !drawn.data) return;
        const curve = drawn.data.findIndex((trace) => trace.visible !== false && (trace.customdata || []).includes(name));
        if (curve < 0) return;
        const trace = drawn.data[curve], place = trace.customdata.indexOf(name);
        // By its values: a WebGL trace does not find a point by its number.
        window.Plotly.Fx.hover(drawn, [{ curveNumber: curve, xval: trace.x[place], yval: trace.y[place] }]);
    };
    const unpoint = () => {
        const drawn = window.calibroscopeAtlasFigure.plot();
        if (drawn && drawn.data) window.Plotly.Fx.unhover(drawn);
    };

    const functions = window.dashAgGridFunctions = window.dashAgGridFunctions || {};
    functions.calibroscopeAtlasFilters = () => state.picked.size > 0 || (state.shown !== null && state.shown.size < EVERY_CLASS);
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

    return { grid, rows, filter, chooseColumns, showErrors, exportRows, aboutRun, pinRows, showPins };
})();
