// The Text lab in the browser. Its state (text and interventions) lives in the address after `#`, which no server is
// sent; from there come links, back and forward, undo and the session's history.
window.calibroscopeLab = (() => {
    const MOST_PAST = 20, MOST_UNDO = 100, PAST = "lab-past";
    const REST_MS = 200;  // a slider that has rested so long has its value written to address, undo and history
    const { TYPING, byId, set, unchanged, element, write, copyText } = window.calibroscopeDom;
    const { LONGEST_LINK, join, show, parameters, hashParameters } = window.calibroscopeAddress;
    const { count } = window.calibroscopeFormat;
    const onLab = () => window.location.pathname === "/lab" && byId("lab-canvas");
    const say = (sentence) => write("lab-status", sentence);

    // ---- a state: {model, text, do}, the interventions written as 29.830:mean,29.1022:scale:2
    const written = (rows) => (rows || []).map((row) =>
        [row.neuron, row.kind].concat(row.value === null ? [] : [row.value]).join(":")).join(",");
    const shape = (done) => done.split(",").map((one) => one.split(":").slice(0, 2).join(":")).join(",");
    const same = (a, b) => a && b && a.model === b.model && a.text === b.text && a.do === b.do;
    const onlyValues = (a, b) => a && a.model === b.model && a.text === b.text && shape(a.do) === shape(b.do);
    const restore = (state) => set("lab-restored", { data: { ...state, stamp: performance.now() } });

    // ---- the address
    const hashOf = (state, text, cut) => {
        const parts = {};
        if (state.do) parts.do = state.do;
        if (cut) parts.cut = "1";
        if (text) parts.text = text;
        return "#" + new URLSearchParams(parts);
    };
    // The whole text, or as much of it as a link may hold; by characters, so that none is cut in two.
    const linked = (state) => {
        const whole = hashOf(state, state.text, false);
        const letters = Array.from(state.text);
        if (whole.length <= LONGEST_LINK) return { hash: whole, kept: letters.length, of: letters.length };
        let low = 0, high = letters.length;
        while (low < high) {
            const middle = Math.ceil((low + high) / 2);
            if (hashOf(state, letters.slice(0, middle).join(""), true).length <= LONGEST_LINK) low = middle;
            else high = middle - 1;
        }
        return { hash: hashOf(state, letters.slice(0, low).join(""), true), kept: low, of: letters.length };
    };
    const readAddress = () => {
        const parts = hashParameters();
        if (!parts.has("text") && !parts.has("do")) return null;
        return { text: parts.get("text") || "", do: parts.get("do") || "", cut: parts.has("cut") };
    };
    const addressOf = (state, hash) => join("/lab", { model: state.model }) + (hash === "#" ? "" : hash);
    const writeAddress = (state, asNewPage) => {
        show(addressOf(state, linked(state).hash), asNewPage);
    };

    // ---- undo, and the history of the session
    const done = [];
    let changedAt = 0, undoing = false, current = null, resting = null, restTimer = 0;
    const rememberSoon = (state) => {
        const last = resting || done[done.length - 1];
        if (undoing || !onlyValues(last, state) || same(last, state)) {
            rememberNow();
            remember(state);
            return;
        }
        resting = state;
        clearTimeout(restTimer);
        restTimer = setTimeout(rememberNow, REST_MS);
    };
    const rememberNow = () => {
        const state = resting;
        resting = null;
        if (state && onLab()) remember(state);
    };
    const remember = (state) => {
        const last = done[done.length - 1];
        const quick = onlyValues(last, state) && performance.now() - changedAt < 1000;
        const asNewPage = !undoing && last && !onlyValues(last, state) && window.location.hash !== "";
        if (state.text && !same(last, state)) {
            if (quick && done.length > 1 && onlyValues(done[done.length - 2], state)) done[done.length - 1] = state;
            else done.push(state);
            if (done.length > MOST_UNDO) done.shift();
            changedAt = performance.now();
            keepPast(state);
        }
        writeAddress(state, asNewPage);
        undoing = false;
        const none = done.length < 2;
        if (byId("lab-undo").disabled !== none) set("lab-undo", { disabled: none });
    };
    const readPast = () => {
        try { return JSON.parse(window.sessionStorage.getItem(PAST)) || []; } catch { return []; }
    };
    const keepPast = (state) => {
        const others = readPast().filter((one) => !onlyValues(one, state));
        try { window.sessionStorage.setItem(PAST, JSON.stringify([state, ...others].slice(0, MOST_PAST))); }
        catch { /* no room or no leave to keep anything: the page works without */ }
        drawPast();
    };
    const drawPast = () => {
        const place = byId(PAST);
        if (!place) return;
        place.replaceChildren(...readPast().map((state) => {
            const letters = Array.from(state.text);
            const button = element("button", "past", letters.slice(0, 56).join("") + (letters.length > 56 ? "…" : ""));
            button.type = "button";
            button.append(element("span", "quiet",
                (state.do || "no intervention").replaceAll(",", ", ").replaceAll(":", " ")));
            button.addEventListener("click", () => restore(state));
            return button;
        }));
        if (!place.hasChildNodes()) place.textContent = "Nothing yet: what you analyse is kept here until the tab closes.";
    };
    const undo = () => {
        rememberNow();
        if (done.length < 2) return;
        done.pop();
        undoing = true;
        restore(done[done.length - 1]);
    };

    const follow = (model, chosen, traced) => {
        const canvas = onLab();
        if (!canvas || !model) return unchanged();
        if (!canvas.labOpened) {
            canvas.labOpened = true;
            drawPast();
            const link = readAddress();
            if (link) {  // not as this callback's answer: Dash would not call it again for what follows from that
                restore({ ...link, model });
                return unchanged();
            }
        }
        const isOther = traced && traced.model !== model;
        window.calibroscopeOutdated.settings(window.calibroscopeOutdated.lab,
            isOther ? "Of the model " + traced.model + ": press Analyse to see the one that is chosen." : "");
        current = { model, text: traced ? traced.text : "", do: written(chosen) };
        rememberSoon(current);
        return unchanged();
    };

    const showPanels = (traced) => {
        const hidden = { display: "none" };
        return traced ? [{}, {}, hidden] : [hidden, hidden, {}];
    };

    const undoLast = () => {
        undo();
        return unchanged();
    };

    const copyLink = async () => {
        if (!current) { say("There is no model yet to link to."); return unchanged(); }
        const { hash, kept, of } = linked(current);
        const link = window.location.origin + addressOf(current, hash);
        const what = !of ? "The link has no text: analyse one first."
            : kept < of ? "The text is too long for a link: it holds the first " + count(kept) + " of " +
                count(of) + " characters, and the interventions."
                : "The link holds the text and the interventions.";
        say((await copyText(link)) ? "Copied. " + what : "Copying is not allowed here: copy the address of this page. " + what);
        return unchanged();
    };

    window.addEventListener("pagehide", rememberNow);
    document.addEventListener("click", rememberNow, { capture: true });  // it may lead to another page
    window.addEventListener("popstate", () => {
        resting = null;
        const link = onLab() && onLab().labOpened && readAddress();
        if (link) restore({ ...link, model: parameters().get("model") || "" });
    });
    document.addEventListener("keydown", (event) => {
        if (!onLab() || event.key.toLowerCase() !== "z" || event.shiftKey || !(event.ctrlKey || event.metaKey)) return;
        if (event.target.closest(TYPING)) return;
        event.preventDefault();
        undo();
    });

    return { follow, showPanels, undo: undoLast, copyLink };
})();
