// Small things that happen in the browser: the address follows the controls, tokens answer to mouse and keyboard.
window.calibroscope = {
    remember(model, run, x, y, colour, logs) {
        if (window.location.pathname === "/" && model) {
            const query = new URLSearchParams({ model, run: run || "", x, y, colour, logs: (logs || []).join("") });
            window.history.replaceState(window.history.state, "", "/?" + query);
        }
        return window.dash_clientside.no_update;
    },
    rememberLab(model, chosen) {
        if (window.location.pathname === "/lab" && model) {
            const written = (chosen || []).map((row) =>
                [row.neuron, row.kind].concat(row.value === null ? [] : [row.value]).join(":"));
            const query = new URLSearchParams({ model });
            if (written.length) query.set("do", written.join(","));
            window.history.replaceState(window.history.state, "", "/lab?" + query);
        }
        return window.dash_clientside.no_update;
    },
};

window.dashAgGridFunctions = window.dashAgGridFunctions || {};
window.dashAgGridFunctions.calibroscopeNumber = (value) => {
    if (value === null || value === undefined) return "—";
    const size = Math.abs(value);
    const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : value.toPrecision(4);
    return text.replace("-", "−");
};

(() => {
    const choose = (token) =>
        window.dash_clientside.set_props("lab-token", { data: Number(token.dataset.token) });
    document.addEventListener("click", (event) => {
        const token = event.target.closest(".strip.clickable [data-token]");
        if (token) choose(token);
    });
    document.addEventListener("keydown", (event) => {
        const token = event.target.closest && event.target.closest(".strip.clickable [data-token]");
        if (!token) return;
        if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            choose(token);
            return;
        }
        const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
        if (!(event.key in steps)) return;
        event.preventDefault();
        const all = [...token.closest(".strip").querySelectorAll("[data-token]")];
        const next = all[all.indexOf(token) + steps[event.key]];
        if (next) {
            token.tabIndex = -1;
            next.tabIndex = 0;
            next.focus();
        }
    });
})();
