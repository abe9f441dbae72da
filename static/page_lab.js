// The Text lab in the browser. Its state (text and interventions) lives in the address after `#`, which no server is
// sent; from there come links, back and forward, undo and the session's history. Sliders ask for one answer at a time.
(() => {
    const LONGEST_LINK = 8000, MOST_PAST = 20, MOST_UNDO = 100, PAST = "lab-past";
    const { TYPING, byId, set, unchanged, element, write, copyText } = window.calibroscopeDom;
    const onLab = () => window.location.pathname === "/lab" && byId("lab-canvas");
    const say = (sentence) => write("lab-said", sentence);

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
        const parts = new URLSearchParams(window.location.hash.slice(1));
        if (!parts.has("text") && !parts.has("do")) return null;
        return { text: parts.get("text") || "", do: parts.get("do") || "", cut: parts.has("cut") };
    };
    const writeAddress = (state, asNewPage) => {
        const { hash } = linked(state);
        const address = "/lab?" + new URLSearchParams({ model: state.model }) + (hash === "#" ? "" : hash);
        if (window.location.pathname + window.location.search + window.location.hash === address) return;
        window.history[asNewPage ? "pushState" : "replaceState"](window.history.state, "", address);
    };

    // ---- undo, and the history of the session
    const done = [];
    let changedAt = 0, undoing = false, current = null;
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
        set("lab-undo", { disabled: done.length < 2 });
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
        if (done.length < 2) return;
        done.pop();
        undoing = true;
        restore(done[done.length - 1]);
    };

    // ---- sliders: the newest position is asked for when the answer to the one before has come
    let waiting = null, asked = null, busySince = 0;
    // A slider and its number follow each other. A control that has not drawn its last value yet writes that value back;
    // taken for a person's, it would send the two after each other for ever.
    const ECHO_MS = 600, moves = new Map();
    let settling = 0;
    const isEcho = (neuron, type, value) => {
        const move = moves.get(neuron), now = performance.now();
        return Boolean(move) && type !== move.type && now - move.at < ECHO_MS && move.recent.includes(value);
    };
    const moved = (neuron, type, value) => {
        const move = moves.get(neuron), now = performance.now();
        const before = move && now - move.at < ECHO_MS ? move.recent.slice(-50) : [];
        moves.set(neuron, { type, at: now, value, recent: [...before, value] });
        clearTimeout(settling);
        settling = setTimeout(() => {  // whatever a late control still shows
            for (const [own, { value: last }] of moves)
                for (const control of ["lab-slider", "lab-value"])
                    if (byId(JSON.stringify({ neuron: own, type: control }))) set({ neuron: own, type: control }, { value: last });
            moves.clear();
        }, ECHO_MS);
    };
    const flush = () => {
        if (!waiting) return;
        asked = JSON.stringify(waiting);
        busySince = performance.now();
        set("lab-chosen", { data: waiting });
        waiting = null;
    };

    window.calibroscope = Object.assign(window.calibroscope || {}, {
        followLab(model, chosen, traced) {
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
            const other = traced && traced.model !== model;
            window.calibroscopeOutdated.settings(window.calibroscopeOutdated.lab,
                other ? "Of the model " + traced.model + ": press Analyse to see the one that is chosen." : "");
            current = { model, text: traced ? traced.text : "", do: written(chosen) };
            remember(current);
            return unchanged();
        },
        showPanels(traced) {
            const hidden = { display: "none" };
            return traced ? [{}, {}, hidden] : [hidden, hidden, {}];
        },
        shapeOf(chosen) {
            if (asked === JSON.stringify(chosen)) return unchanged();  // a slider moved: it must not be drawn anew
            waiting = null;
            return chosen;
        },
        slide(_, __, chosen) {
            const { triggered } = window.dash_clientside.callback_context;
            let rows = waiting || chosen || [];
            for (const { prop_id, value } of triggered) {
                if (typeof value !== "number" || !Number.isFinite(value)) continue;
                const { neuron, type } = JSON.parse(prop_id.slice(0, prop_id.lastIndexOf(".")));
                const row = rows.find((one) => one.neuron === neuron);
                if (!row || row.value === null || row.value === value || isEcho(neuron, type, value)) continue;
                const kept = Math.min(1e4, Math.max(-1e4, value));
                rows = rows.map((one) => (one === row ? { ...one, value: kept } : one));
                moved(neuron, type, kept);
                const twin = type === "lab-slider" ? "lab-value" : "lab-slider";
                set({ neuron, type: twin }, { value: kept });
                waiting = rows;
            }
            if (waiting && (!busySince || performance.now() - busySince > 5000)) flush();
            return unchanged();
        },
        settled() {
            busySince = 0;
            flush();
            return unchanged();
        },
        undo() {
            undo();
            return unchanged();
        },
        async copyLink() {
            if (!current) { say("There is no model yet to link to."); return unchanged(); }
            const { hash, kept, of } = linked(current);
            const link = window.location.origin + "/lab?" + new URLSearchParams({ model: current.model }) +
                (hash === "#" ? "" : hash);
            const what = !of ? "The link has no text: analyse one first."
                : kept < of ? "The text is too long for a link: it holds the first " + kept.toLocaleString("en") + " of " +
                    of.toLocaleString("en") + " characters, and the interventions."
                    : "The link holds the text and the interventions.";
            say((await copyText(link)) ? "Copied. " + what : "Copying is not allowed here: copy the address of this page. " + what);
            return unchanged();
        },
        // Pinned neurons as a table: a column a token, a row a neuron, so that they stand one under the other.
        drawPinned(text, data, chosen) {
            const canvas = byId("lab-pinned-canvas");
            if (!canvas) return unchanged();
            const fresh = text && data && data.text === text.text ? data : null;
            if (canvas.drawnFrom !== fresh) {
                canvas.drawnFrom = fresh;
                canvas.replaceChildren(...(fresh ? [pinnedTable(text, fresh)] : []));
            }
            for (const cell of canvas.querySelectorAll("[data-place]"))
                cell.classList.toggle("marked", Number(cell.dataset.place) === chosen && chosen !== null);
            return unchanged();
        },
    });

    const pinnedTable = (text, data) => {
        const frame = element("div", "pinned-frame"), table = element("table", "pinned");
        frame.tabIndex = 0;
        frame.setAttribute("role", "region");
        frame.setAttribute("aria-label", "Activations of pinned neurons");
        const head = element("tr");
        head.append(element("th", "pinned-name", ""));
        text.tokens.forEach((token, place) => {
            const cell = element("th", "pinned-token");
            const button = element("button", "", token);
            button.type = "button";
            button.addEventListener("click", () => set("lab-token", { data: place }));
            cell.dataset.place = place;
            cell.scope = "col";
            cell.append(button);
            head.append(cell);
        });
        const rows = data.strips.map((strip) => {
            const row = element("tr"), name = element("th", "pinned-name mono", strip.title);
            name.scope = "row";
            name.append(element("span", "quiet", strip.legend.join(" … ")));
            row.append(name);
            strip.shade.forEach((shade, place) => {
                const cell = element("td");
                if (shade !== null) cell.style.backgroundColor = data.shades[strip.kind][shade][0];
                cell.title = text.tokens[place] + "  (position " + place + ")\n" + strip.title + ": " + strip.shown[place];
                cell.append(element("span", "visually-hidden", strip.shown[place]));
                cell.dataset.place = place;
                row.append(cell);
            });
            row.addEventListener("click", (event) => {
                const cell = event.target.closest("td[data-place]");
                if (cell) set("lab-token", { data: Number(cell.dataset.place) });
            });
            return row;
        });
        table.append(head, ...rows);
        frame.append(table);
        return frame;
    };

    window.addEventListener("popstate", () => {
        const link = onLab() && onLab().labOpened && readAddress();
        if (link) restore({ ...link, model: new URLSearchParams(window.location.search).get("model") || "" });
    });
    document.addEventListener("keydown", (event) => {
        if (!onLab() || event.key.toLowerCase() !== "z" || event.shiftKey || !(event.ctrlKey || event.metaKey)) return;
        if (event.target.closest(TYPING)) return;
        event.preventDefault();
        undo();
    });
})();
