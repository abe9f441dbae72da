// The spectrum page's address follows its controls.
window.calibroscopeSpectrum = {
    remember(model, run, beside, neurons, close) {
        if (window.location.pathname === "/spectrum" && model && run) {
            const asked = { model, run, ...(beside && beside !== "none" ? { beside } : {}), ...(neurons ? { neurons } : {}),
                ...(close ? { close: "1" } : {}) };
            const address = "/spectrum?" + new URLSearchParams(asked);
            if (address !== window.location.pathname + window.location.search)
                window.history.replaceState(window.history.state, "", address);
        }
        return window.dash_clientside.no_update;
    },
};
