// Strips of tokens, drawn from plain data (`strip_data` of app/components/token_strip.py): a thousand tokens in eight
// strips are eight thousand elements, which as components would take seconds.
window.calibroscopeStrips = (() => {
    const { element } = window.calibroscopeDom;

    const box = (text, strip, shades, clickable = false) => {
        const whole = element("div", "strip-box"), head = element("div", "strip-head");
        const legend = element("span", "legend"), tokens = element("div", clickable ? "strip clickable" : "strip");
        legend.append(element("span"), element("span", "legend-bar " + strip.kind), element("span"));
        head.append(element("span", "strip-title", strip.title), legend);
        tokens.setAttribute("role", clickable ? "listbox" : "group");
        tokens.setAttribute("aria-label", strip.title + ", " + text.tokens.length + " tokens");
        const breaks = new Set(text.breaks);
        text.tokens.forEach((token, place) => {
            const piece = element("span", "tok", token);
            piece.dataset.token = place;
            if (clickable) piece.setAttribute("role", "option");
            tokens.append(piece);
            if (breaks.has(place)) tokens.append(document.createElement("br"));
        });
        whole.append(head, tokens);
        whole.stripTitle = strip.title;
        colour(whole, text, strip, shades);
        return whole;
    };

    // Only what differs from what stands there is touched: most of it does not, and the browser lays out the rest anew.
    const colour = (whole, text, strip, shades) => {
        const [low, , high] = whole.querySelector(".legend").children, before = whole.drawnFrom;
        if (low.textContent !== strip.legend[0]) low.textContent = strip.legend[0];
        if (high.textContent !== strip.legend[1]) high.textContent = strip.legend[1];
        for (const piece of whole.querySelectorAll("[data-token]")) {
            const place = Number(piece.dataset.token), shade = strip.shade[place], shown = strip.shown[place];
            if (!before || before.shade[place] !== shade)
                [piece.style.backgroundColor, piece.style.color] = shade === null ? ["", ""] : shades[strip.kind][shade];
            if (!before || before.shown[place] !== shown)
                piece.title = [text.tokens[place] + "  (position " + place + ")", strip.title + ": " + shown,
                    text.details[place] || ""].join("\n");
        }
        whole.drawnFrom = strip;
    };

    return { box, colour };
})();
