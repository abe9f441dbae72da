// The tour of app/tour.py: a small dialog that points at one element after another and never blocks the page.
(() => {
    const SEEN = "calibroscope-tour";
    const { byId, element } = window.calibroscopeDom;
    let box = null, walking = 0;

    const seen = () => {
        try { return localStorage.getItem(SEEN) === "seen"; } catch { return true; }
    };
    const remember = () => {
        try { localStorage.setItem(SEEN, "seen"); } catch { /* a browser that keeps nothing asks again */ }
    };
    const leave = () => {
        for (const marked of document.querySelectorAll("[data-tour]")) marked.removeAttribute("data-tour");
    };
    const close = () => {
        walking += 1;
        leave();
        if (box) box.remove();
        box = null;
        remember();
    };
    const show = (title, text, buttons) => {
        if (box) box.remove();
        box = element("section", "tour");
        box.setAttribute("role", "dialog");
        box.setAttribute("aria-label", title);
        const row = element("div", "tour-buttons");
        for (const [words, act] of buttons) {
            const one = element("button", "plain", words);
            one.type = "button";
            one.addEventListener("click", act);
            row.append(one);
        }
        box.append(element("strong", "", title), element("p", "", text), row);
        document.body.append(box);
        return row;
    };
    const goTo = (path) => {
        if (window.location.pathname === path) return;
        const link = document.querySelector(`.site-header a[href="${path}"]`);
        if (link) link.click();
    };
    const stop = async (steps, place) => {
        const walk = (walking += 1), isCurrent = () => walk === walking;
        const step = steps[place], last = place === steps.length - 1;
        leave();
        goTo(step.path);
        const buttons = [["Close", close]];
        if (place > 0) buttons.push(["Back", () => stop(steps, place - 1)]);
        buttons.push(last ? ["Done", close] : ["Next", () => stop(steps, place + 1)]);
        const row = show(`${place + 1} of ${steps.length}: ${step.title}`, step.text, buttons);
        row.lastElementChild.focus({ preventScroll: true });
        // An element may be drawn anew, by another page or by new data: it is looked for as long as the step lasts.
        for (let shown = null; isCurrent(); await new Promise((done) => setTimeout(done, 200))) {
            const target = document.querySelector(step.target);
            if (!target || !target.getClientRects().length) continue;
            target.setAttribute("data-tour", "here");
            if (target !== shown) target.scrollIntoView({ block: "nearest" });
            shown = target;
        }
    };
    const steps = () => JSON.parse(byId("tour-start").dataset.steps);

    document.addEventListener("click", (event) => {
        if (event.target.closest("#tour-start")) stop(steps(), 0);
    });
    document.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && box) close();
    });
    const offer = () => {
        if (seen() || box) return;
        if (!byId("tour-start")) { setTimeout(offer, 300); return; }
        show("First time here?", "Five steps show what this instrument does.",
            [["No, thanks", close], ["Take the tour", () => stop(steps(), 0)]]);
    };
    window.addEventListener("load", offer);
})();
