// The spectrum page's address follows its controls.
window.calibroscopeSpectrum = {
    remember(model, run, beside, neurons) {
        if (window.location.pathname === "/spectrum" && model && run) {
            const asked = { model, run, ...(beside && beside !== "none" ? { beside } : {}), ...(neurons ? { neurons } : {}) };
            const address = "/spectrum?" + new URLSearchParams(asked);
            if (address !== window.location.pathname + window.location.search)
                window.history.replaceState(window.history.state, "", address);
        }
        return window.dash_clientside.no_update;
    },
};
