// A service that does not answer: said on every page, until it answers again. Dash itself only writes to the console.
(() => {
    const OURS = "_dash-update-component";
    const GONE = "The service does not answer. Is it still running? What you see stays here; try again once it is back.";
    const BROKEN = "The service met an error and could not answer. What you see may be out of date: try again, or reload the page.";
    let banner = null, left = false;
    const say = (sentence) => {
        if (!banner || !banner.isConnected) {
            banner = document.createElement("div");
            banner.className = "offline";
            banner.setAttribute("role", "alert");
            document.body.append(banner);
        }
        if (banner.textContent !== sentence) banner.textContent = sentence;
    };
    const told = async (answer) => {
        try { return (await answer.clone().json()).detail; } catch { return null; }
    };
    const clear = () => { if (banner) banner.remove(); };
    const ask = window.fetch;
    window.fetch = async (...asked) => {
        const address = String((asked[0] && asked[0].url) || asked[0]);
        if (left || !address.includes(OURS)) return ask(...asked);
        try {
            const answer = await ask(...asked);
            if (answer.status < 500) {
                clear();
                return answer;
            }
            say(await told(answer) || BROKEN);
            console.error("calibroscope: status " + answer.status + " from " + address);
        } catch (error) {
            // A page that is left takes its questions back: nothing is wrong then.
            if (left || (error && error.name === "AbortError")) throw error;
            say(GONE);
            console.error("calibroscope: no answer from " + address);
        }
        // "Nothing changes": without an answer Dash would leave the pressed button waiting, and shut, for ever.
        return new Response(null, { status: 204 });
    };
    window.addEventListener("pagehide", () => { left = true; });
    window.addEventListener("pageshow", () => { left = false; });
})();
