// Asking the service: reading, writing with its key where it wants one, and streams of events.
window.calibroscopeStream = (() => {
    const API = "/api/v1", KEY = "calibroscope-service-key";
    const CALLBACKS = "_dash-update-component";
    const UNREACHABLE = "The service could not be reached. Is it running?";
    const { byId, set } = window.calibroscopeDom;

    const get = (path, signal) => fetch(API + path, { signal });
    const post = (path, body, signal, headers = {}) => fetch(API + path, {
        method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body), signal,
    });

    // The service's reason for an answer that is none.
    const problem = async (answer) => {
        try { return (await answer.clone().json()).detail; } catch { return null; }
    };
    const refusal = async (answer) => (await problem(answer)) || "The service answered " + answer.status + ".";

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

    // The key is asked for once the service has refused, and kept for as long as the tab lives. A header holds printable
    // characters only; a key with others is refused like any wrong one.
    const key = () => {
        const input = byId("service-key"), typed = input ? input.value.trim() : "";
        return (typed || window.sessionStorage.getItem(KEY) || "").replace(/[^\x20-\x7e]/g, "?");
    };
    const write = async (path, body, signal) => {
        const sent = key();
        const answer = await post(path, body, signal, sent ? { "X-API-Key": sent } : {});
        if (answer.status === 403) {
            window.sessionStorage.removeItem(KEY);
            set("service-key-box", { hidden: false });
        } else if (answer.ok) {
            if (sent) window.sessionStorage.setItem(KEY, sent);
            set("service-key-box", { hidden: true });
        }
        return answer;
    };

    // Lets `around(ask, address, body)` watch or change what Dash's callbacks ask and are answered.
    const aroundCallbacks = (around) => {
        const ask = window.fetch;
        window.fetch = (...request) => {
            const address = String((request[0] && request[0].url) || request[0]);
            if (!address.includes(CALLBACKS)) return ask(...request);
            return around(() => ask(...request), address, request[1] && request[1].body);
        };
    };

    return { UNREACHABLE, get, post, write, problem, refusal, events, aroundCallbacks };
})();
