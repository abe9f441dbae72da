// A service that does not answer: said on every page, until it answers again. Dash itself only writes to the console.
(() => {
    const GONE = "The service does not answer. Is it still running? What you see stays here; try again once it is back.";
    const BROKEN = "The service met an error and could not answer. What you see may be out of date: try again, or reload the page.";
    const { element } = window.calibroscopeDom;
    const { problem, aroundCallbacks } = window.calibroscopeStream;
    let banner = null, left = false;
    const say = (sentence) => {
        if (!banner || !banner.isConnected) {
            banner = element("div", "offline");
            banner.setAttribute("role", "alert");
            document.body.append(banner);
        }
        if (banner.textContent !== sentence) banner.textContent = sentence;
    };
    const clear = () => { if (banner) banner.remove(); };
    aroundCallbacks(async (ask, address) => {
        if (left) return ask();
        try {
            const answer = await ask();
            if (answer.status < 500) {
                clear();
                return answer;
            }
            say(await problem(answer) || BROKEN);
            console.error("calibroscope: status " + answer.status + " from " + address);
        } catch (error) {
            // A page that is left takes its questions back: nothing is wrong then.
            if (left || (error && error.name === "AbortError")) throw error;
            say(GONE);
            console.error("calibroscope: no answer from " + address);
        }
        // "Nothing changes": without an answer Dash would leave the pressed button waiting, and shut, for ever.
        return new Response(null, { status: 204 });
    });
    window.addEventListener("pagehide", () => { left = true; });
    window.addEventListener("pageshow", () => { left = false; });
})();
