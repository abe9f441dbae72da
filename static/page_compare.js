// A text through two models: strips over the stretches of it at whose ends tokens of both end (app/pages/compare/texts.py).
window.calibroscopeCompare = (() => {
    const { byId, unchanged } = window.calibroscopeDom;

    const draw = (text) => {
        const canvas = byId("compare-canvas");
        if (!canvas || canvas.drawnFrom === text) return unchanged();
        canvas.replaceChildren(...(text ? text.strips : []).map((strip) => window.calibroscopeStrips.box(text, strip, text.shades)));
        canvas.drawnFrom = text;
        return unchanged();
    };

    return { draw };
})();
