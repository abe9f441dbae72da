// The Text lab's strips, whose tokens answer to mouse and keyboard.
window.calibroscopeLabStrips = (() => {
    const { byId, set, unchanged, element } = window.calibroscopeDom;
    const { colour } = window.calibroscopeStrips;
    const stripBox = (text, strip, shades) => window.calibroscopeStrips.box(text, strip, shades, true);

    const NO_CHANGES = { shades: {}, strips: [] };
    // Whether there are other strips than before.
    const drawChanges = (place, text, { shades, strips }) => {
        const boxes = [...place.children];
        const same = boxes.length === strips.length && strips.every((strip, one) => boxes[one].stripTitle === strip.title);
        if (same) strips.forEach((strip, one) => colour(boxes[one], text, strip, shades));
        else place.replaceChildren(...strips.map((strip) => stripBox(text, strip, shades)));
        return !same;
    };

    const mark = (canvas, chosen) => {
        const place = chosen === null || chosen === undefined ? 0 : chosen;
        for (const token of canvas.querySelectorAll("[data-token]")) {
            const here = Number(token.dataset.token);
            token.classList.toggle("marked", here === chosen);
            token.setAttribute("aria-selected", String(here === chosen));
            token.tabIndex = here === place ? 0 : -1;
        }
    };

    const choose = (token) => set("lab-token", { data: Number(token.dataset.token) });
    document.addEventListener("click", (event) => {
        const token = event.target.closest(".strip.clickable [data-token]");
        if (token) choose(token);
    });
    document.addEventListener("keydown", (event) => {
        const token = event.target.closest && event.target.closest(".strip.clickable [data-token]");
        if (!token) return;
        if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            choose(token);
            return;
        }
        const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
        if (!(event.key in steps)) return;
        event.preventDefault();
        const all = [...token.closest(".strip").querySelectorAll("[data-token]")];
        const next = all[all.indexOf(token) + steps[event.key]];
        if (next) {
            token.tabIndex = -1;
            next.tabIndex = 0;
            next.focus();
        }
    });

    // Draw the strips of a text, and of what interventions change in it (`text_strips` and `change_strips` of
    // app/pages/lab/views.py), or only move the mark when a token was chosen. A slider's step changes colours and
    // values of strips that stand there already.
    const draw = (text, changes, chosen) => {
        const canvas = byId("lab-canvas");
        if (!canvas || !text) return unchanged();
        const [texts, changed] = canvas.children;
        const fresh = changes && changes.text === text.text ? changes : NO_CHANGES;
        const top = canvas.getBoundingClientRect().top;
        let anew = canvas.drawnFrom !== text;
        if (anew) {
            texts.replaceChildren(...text.strips.map((strip) => stripBox(text, strip, text.shades)));
            changed.replaceChildren();
        }
        if (anew || changed.drawnFrom !== fresh) anew = drawChanges(changed, text, fresh) || anew;
        if (anew && top < 0) window.scrollBy(0, canvas.getBoundingClientRect().top - top);
        if (anew || canvas.chosen !== chosen) mark(canvas, chosen);
        [canvas.drawnFrom, changed.drawnFrom, canvas.chosen] = [text, fresh, chosen];
        return unchanged();
    };

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

    // Pinned neurons as a table: a column a token, a row a neuron, so that they stand one under the other.
    const drawPinned = (text, data, chosen) => {
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
    };

    return { draw, drawPinned };
})();
