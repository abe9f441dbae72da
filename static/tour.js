// The tour of app/tour.py: a small dialog that points at one element after another and never blocks the page.
(() => {
    const SEEN = "calibroscope-tour";
    const make = (tag, className, text) => {
        const made = document.createElement(tag);
        made.className = className;
        if (text !== undefined) made.textContent = text;
        return made;
    };
    let box = null, target = null, walking = 0;

    const seen = () => {
        try { return localStorage.getItem(SEEN) === "seen"; } catch { return true; }
    };
    const remember = () => {
        try { localStorage.setItem(SEEN, "seen"); } catch { /* a browser that keeps nothing asks again */ }
    };
    const leave = () => {
        if (target) target.classList.remove("tour-target");
        target = null;
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
        box = make("section", "tour");
        box.setAttribute("role", "dialog");
        box.setAttribute("aria-label", title);
        const row = make("div", "tour-buttons");
        for (const [words, act] of buttons) {
            const one = make("button", "plain", words);
            one.type = "button";
            one.addEventListener("click", act);
            row.append(one);
        }
        box.append(make("strong", "", title), make("p", "", text), row);
        document.body.append(box);
        return row;
    };
    const goTo = (path) => {
        if (window.location.pathname === path) return;
        const link = document.querySelector(`.site-header a[href="${path}"]`);
        if (link) link.click();
    };
    const wait = async (selector, walk) => {
        for (let tries = 0; tries < 50 && walk === walking; tries += 1) {
            const found = document.querySelector(selector);
            if (found && found.getClientRects().length) return found;
            await new Promise((done) => setTimeout(done, 100));
        }
        return null;
    };
    const stop = async (steps, place) => {
        const walk = (walking += 1), step = steps[place], last = place === steps.length - 1;
        leave();
        goTo(step.path);
        const buttons = [["Close", close]];
        if (place > 0) buttons.push(["Back", () => stop(steps, place - 1)]);
        buttons.push(last ? ["Done", close] : ["Next", () => stop(steps, place + 1)]);
        const row = show(`${place + 1} of ${steps.length}: ${step.title}`, step.text, buttons);
        row.lastElementChild.focus({ preventScroll: true });
        const found = await wait(step.target, walk);
        if (walk !== walking || !found) return;
        target = found;
        target.classList.add("tour-target");
        target.scrollIntoView({ block: "nearest" });
    };
    const steps = () => JSON.parse(document.getElementById("tour-start").dataset.steps);

    document.addEventListener("click", (event) => {
        if (event.target.closest("#tour-start")) stop(steps(), 0);
    });
    document.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && box) close();
    });
    const offer = () => {
        if (seen() || box) return;
        if (!document.getElementById("tour-start")) { setTimeout(offer, 300); return; }
        show("First time here?", "Five steps show what this instrument does.",
            [["No, thanks", close], ["Take the tour", () => stop(steps(), 0)]]);
    };
    window.addEventListener("load", offer);
})();
