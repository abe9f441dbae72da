// The atlas's controls: its figure, what is selected in it, presets, and the token whose movers are marked.
window.calibroscopeAtlas = (() => {
    const WIDTH = 1100, HEIGHT = 750;
    const { set, unchanged, triggered } = window.calibroscopeDom;
    // Dash loads it after this script.
    const figures = () => window.calibroscopeAtlasFigure;

    // Points are placed anew only when the view changes; what is hidden, selected or marked is drawn over them.
    const drawnView = { data: null, view: "", base: null };
    const figure = (data, x, y, colour, size, xScale, yScale, shown, picked, ticked, marks, pins, drag, model, kit) => {
        if (!data || !x || !y) return unchanged();
        const { draw, compose, plot } = figures();
        const view = JSON.stringify([x, y, colour, size, xScale, yScale]);
        if (drawnView.base === null || drawnView.data !== data || drawnView.view !== view)
            Object.assign(drawnView, { data, view, base: draw(data, x, y, colour, size, xScale, yScale, kit) });
        set("atlas-undrawn", { children: drawnView.base.note });
        const next = compose(drawnView.base, shown, picked, ticked, marks, pins, drag, model), drawn = plot();
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

    const save = (clicks, model, run, x, y) => {
        const { plot, takenAway } = figures(), by = triggered(), drawn = plot();
        if (by && drawn && clicks.some(Boolean)) {
            window.Plotly.downloadImage(takenAway(drawn, WIDTH, HEIGHT), { format: by.format, width: WIDTH, height: HEIGHT,
                scale: by.format === "png" ? 2 : 1, filename: [model, "run" + run, y, "by", x].join("-") });
        }
        return unchanged();
    };

    // A token is chosen by its button, or by Enter: the best match. Another model's tokens have other numbers.
    let modelBefore = null;
    const chooseToken = (clicks, submitted, typed, model, ids) => {
        const by = triggered();
        const before = modelBefore;
        modelBefore = model;
        if (by === "atlas-model") return before && model && before !== model ? null : unchanged();
        if (by === "atlas-token-query" && !typed) return null;
        if (by && by.token !== undefined) return clicks.some(Boolean) ? by.token : unchanged();
        const entered = window.dash_clientside.callback_context.triggered.some((one) => one.prop_id.endsWith(".n_submit"));
        return entered && ids.length ? ids[0].token : unchanged();
    };
    const markToken = (token, ids) => ids.map((id) => String(id.token === token));

    return { figure, pick, choosePreset, freeAxes, markPreset, save, chooseToken, markToken };
})();
