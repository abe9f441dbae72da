// Asking the service for a stream of events, and telling what went wrong. Named so that Dash, which loads scripts in
// the order of their names, has it before those that use it.
window.calibroscopeStream = (() => {
    const API = "/api/v1";
    const post = (path, body, signal, headers = {}) => fetch(API + path, {
        method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body), signal,
    });
    const get = (path, signal) => fetch(API + path, { signal });
    const refused = async (answer) => {
        try { return (await answer.json()).detail; } catch { return "The service answered " + answer.status + "."; }
    };
    async function* events(answer) {
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let rest = "";
        for (;;) {
            const { done, value } = await reader.read();
            if (done) return;
            const parts = (rest + value).split("\n\n");
            rest = parts.pop();
            // Others are comments, by which the service keeps a quiet connection open.
            for (const part of parts) if (part.startsWith("data: ")) yield JSON.parse(part.slice("data: ".length));
        }
    }
    const failed = (place, sentence) => {
        const error = document.createElement("div"), what = document.createElement("strong");
        error.className = "state error";
        error.setAttribute("role", "alert");
        what.textContent = "This did not work. ";
        error.append(what, sentence);
        place.append(error);
    };
    return { get, post, refused, events, failed };
})();
