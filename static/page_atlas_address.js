// The atlas's address follows its controls, and Back and Forward set them again.
window.calibroscopeAtlasAddress = (() => {
    const MOST_PICKED = 50;  // as in app/pages/atlas/state.py
    const CLASSES = ["entropy", "token_frequency", "prediction", "plain"];
    const USUAL_SORT = "-total_effect";
    const SETTLED_MS = 3000;  // controls agree with the address long before
    const { byId, set, unchanged } = window.calibroscopeDom;
    const { join, show, parameters } = window.calibroscopeAddress;
    const state = { written: null, axes: {}, wanted: null, columns: [] };

    // Another model, run, preset or axis is a step to come back to; the rest is not.
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
        window.calibroscopeAtlasTable.grid((api) => api.applyColumnState({
            state: [{ colId: sort.replace("-", ""), sort: sort.startsWith("-") ? "desc" : "asc" }], defaultState: { sort: null },
        }));
    });

    return { remember };
})();
