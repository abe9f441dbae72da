// Pinned neurons, {model: [neuron, ...]}: the bar that shows them, the buttons that change them.
window.calibroscopePins = (() => {
    const MOST = 40;  // as in app/components/pins.py
    const NAME = /^[0-9]{1,4}\.[0-9]{1,7}$/;
    const { unchanged } = window.calibroscopeDom;
    const { neuron: addressOf } = window.calibroscopeAddress;
    const part = (namespace, type, props) => ({ namespace, type, props });
    const html = (type, props) => part("dash_html_components", type, props);

    // What was stored may be of an older version, or edited by hand.
    const read = (pins) => Object.fromEntries(Object.entries(pins || {}).map(([model, names]) =>
        [model, Array.isArray(names) ? [...new Set(names)].filter((name) => NAME.test(name)).slice(-MOST) : []])
        .filter(([, names]) => names.length).slice(0, MOST));

    const toggled = (pins, model, neuron) => {
        const all = read(pins), before = all[model] || [];
        all[model] = before.includes(neuron) ? before.filter((name) => name !== neuron) : [...before, neuron].slice(-MOST);
        return read(all);
    };

    const added = (pins, model, neurons) => {
        const all = read(pins), before = all[model] || [];
        all[model] = [...before, ...neurons.filter((name) => !before.includes(name))].slice(-MOST);
        return read(all);
    };

    const chip = (model, neuron) => html("Span", {
        className: "pin chip",
        key: model + neuron,
        children: [
            part("dash_core_components", "Link", { href: addressOf(model, neuron), children: neuron }),
            html("Button", {
                id: { type: "pins-unpin", model, neuron }, className: "pin-remove", children: "×", title: "Unpin",
                "aria-label": "Unpin " + neuron, type: "button",
            }),
        ],
    });

    const bar = (pins) => {
        const all = read(pins), models = Object.keys(all);
        if (!models.length) return [];
        const groups = models.flatMap((model) => [
            ...(models.length > 1 ? [html("Span", { className: "quiet", key: model, children: model })] : []),
            ...all[model].map((neuron) => chip(model, neuron)),
        ]);
        return html("Section", {
            className: "pins", "aria-label": "Pinned neurons",
            children: [
                html("Span", { className: "pins-title", key: "title", children: "Pinned" }),
                ...groups,
                html("Button", {
                    id: { type: "pins-clear", name: "all" }, key: "clear", className: "link-button", type: "button",
                    children: "Unpin all",
                }),
            ],
        });
    };

    // A button that has just appeared also reports, with no click yet.
    const clicked = (...given) => {
        const pins = given[given.length - 1], [by] = window.dash_clientside.callback_context.triggered;
        if (!by || !by.value) return unchanged();
        const id = JSON.parse(by.prop_id.slice(0, by.prop_id.lastIndexOf(".")));
        return id.type === "pins-clear" ? {} : toggled(pins, id.model, id.neuron);
    };

    const label = (pins, id) => {
        const pinned = (read(pins)[id.model] || []).includes(id.neuron);
        return pinned ? ["Unpin", "Unpin " + id.neuron] : ["Pin", "Pin " + id.neuron];
    };

    return { read, toggled, added, bar, clicked, label };
})();
