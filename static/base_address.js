// Addresses of pages: every view is a link.
window.calibroscopeAddress = (() => {
    // A longer address is cut off on its way through mail and chat.
    const LONGEST_LINK = 8000;

    const current = () => window.location.pathname + window.location.search + window.location.hash;
    const join = (path, query) => {
        const written = new URLSearchParams(query).toString().replaceAll("%2C", ",");
        return written ? path + "?" + written : path;
    };
    // `step`: an entry of its own in the browser's history, which Back returns to.
    const show = (address, step = false) => {
        if (address === current()) return;
        window.history[step ? "pushState" : "replaceState"](window.history.state, "", address);
    };
    const parameters = () => new URLSearchParams(window.location.search);
    // What stands behind the `#` stays in the browser: no server is sent it.
    const hashParameters = () => new URLSearchParams(window.location.hash.slice(1));

    // For a page whose address follows its controls. The model and the run come first: there is no view without them.
    const follow = (path, names, values, usual = {}) => {
        const query = Object.fromEntries(names.map((name, place) => [name, values[place]])
            .filter(([name, value]) => value && value !== usual[name]).map(([name, value]) => [name, value === true ? "1" : value]));
        if (window.location.pathname === path && values[0] && values[1]) show(join(path, query));
        return window.calibroscopeDom.unchanged();
    };

    const neuron = (model, name) => "/m/" + encodeURIComponent(model) + "/n/" + name.replaceAll(".", "/");

    return { LONGEST_LINK, current, join, show, parameters, hashParameters, follow, neuron };
})();
