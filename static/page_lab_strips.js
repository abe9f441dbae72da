// Small things that happen in the browser: the address follows the controls, tokens answer to mouse and keyboard.
window.calibroscope = Object.assign(window.calibroscope || {}, {
    // Draw the lab's strips from `strip_data` (app/components/token_strip.py), or only move the mark when a token was chosen.
    drawStrips(data, chosen) {
        const canvas = document.getElementById("lab-canvas");
        if (canvas && data && canvas.drawnFrom !== data) {
            const top = canvas.getBoundingClientRect().top;
            canvas.replaceChildren(...data.strips.map((strip) => stripBox(data, strip)));
            canvas.drawnFrom = data;
            if (top < 0) window.scrollBy(0, canvas.getBoundingClientRect().top - top);
        }
        if (canvas) mark(canvas, chosen);
        return window.dash_clientside.no_update;
    },
});

// Tokens are data: they are set as text, never read as markup.
const element = (tag, className, text) => {
    const made = document.createElement(tag);
    made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
};

const stripBox = (data, strip) => {
    const box = element("div", "strip-box"), head = element("div", "strip-head");
    const legend = element("span", "legend"), tokens = element("div", "strip clickable");
    legend.append(element("span", "", strip.legend[0]), element("span", "legend-bar " + strip.kind),
        element("span", "", strip.legend[1]));
    head.append(element("span", "strip-title", strip.title), legend);
    tokens.setAttribute("role", "listbox");
    tokens.setAttribute("aria-label", strip.title + ", " + data.tokens.length + " tokens");
    const shades = data.shades[strip.kind], breaks = new Set(data.breaks);
    data.tokens.forEach((token, place) => {
        const piece = element("span", "tok", token), shade = strip.shade[place];
        if (shade !== null) [piece.style.backgroundColor, piece.style.color] = shades[shade];
        piece.title = [token + "  (position " + place + ")", strip.title + ": " + strip.shown[place],
            data.details[place] || ""].join("\n");
        piece.dataset.token = place;
        piece.setAttribute("role", "option");
        tokens.append(piece);
        if (breaks.has(place)) tokens.append(document.createElement("br"));
    });
    box.append(head, tokens);
    return box;
};

const mark = (canvas, chosen) => {
    const place = chosen === null || chosen === undefined ? 0 : chosen;
    for (const token of canvas.querySelectorAll("[data-token]")) {
        const own = Number(token.dataset.token);
        token.classList.toggle("marked", own === chosen);
        token.setAttribute("aria-selected", String(own === chosen));
        token.tabIndex = own === place ? 0 : -1;
    }
};

window.dashAgGridFunctions = window.dashAgGridFunctions || {};
window.dashAgGridFunctions.calibroscopeNumber = (value) => {
    if (value === null || value === undefined) return "—";
    const size = Math.abs(value);
    const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : value.toPrecision(4);
    return text.replace("-", "−");
};

(() => {
    const choose = (token) =>
        window.dash_clientside.set_props("lab-token", { data: Number(token.dataset.token) });
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
})();
