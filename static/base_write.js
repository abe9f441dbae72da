// Writing to the service, with its key where it wants one. The key is asked for when the service has refused, and kept
// for as long as the tab lives. Named so that Dash loads it after base_stream.js and before those that use it.
window.calibroscopeWrite = (() => {
    const NAME = "calibroscope-service-key";
    const typed = () => {
        const input = document.getElementById("service-key");
        return input ? input.value.trim() : "";
    };
    // A header holds no other characters; a key that had some would be refused as wrong.
    const key = () => (typed() || window.sessionStorage.getItem(NAME) || "").replace(/[^\x20-\x7e]/g, "?");
    const ask = (wanted) => window.dash_clientside.set_props("service-key-box", { hidden: !wanted });
    return async (path, body, signal) => {
        const own = key();
        const answer = await window.calibroscopeStream.post(path, body, signal, own ? { "X-API-Key": own } : {});
        if (answer.status === 403) {
            window.sessionStorage.removeItem(NAME);
            ask(true);
        } else if (answer.ok) {
            if (own) window.sessionStorage.setItem(NAME, own);
            ask(false);
        }
        return answer;
    };
})();
