// The token-frequency page's address follows its selects.
window.calibroscopeFrequency = {
    remember(model, run) {
        if (window.location.pathname === "/frequency" && model && run) {
            const address = "/frequency?" + new URLSearchParams({ model, run });
            if (address !== window.location.pathname + window.location.search)
                window.history.replaceState(window.history.state, "", address);
        }
        return window.dash_clientside.no_update;
    },
};
