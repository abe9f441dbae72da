// Numbers and tokens in words: the rules of app/notation. tests/fixtures holds both to the same answers.
window.calibroscopeFormat = (() => {
    const MINUS = "−", NOT_MEASURED = "—";

    // JavaScript rounds a number that is exactly half way away from zero, Python to the even digit. The odd digit that
    // JavaScript then ends with is one too many.
    const toEven = (value, digits, method) => {
        const [mantissa, exponent] = value[method](digits).split("e");
        const last = Number(mantissa.at(-1)), exact = value[method](100).split("e")[0];
        const isHalf = last % 2 === 1 && /^50*$/.test(exact.slice(exact.indexOf(".") + 1 + digits));
        const rounded = isHalf ? mantissa.slice(0, -1) + (last - 1) : mantissa;
        return exponent === undefined ? rounded : rounded + "e" + exponent.replace(/^([+-])(\d)$/, "$10$2");
    };
    // A hundred digits are slow to write, and few numbers are near a half.
    const mayBeHalf = (value, digits) => (Math.abs(value) * 10 ** digits) % 1 === 0.5;
    const fixed = (value, digits) => (mayBeHalf(value, digits) ? toEven(value, digits, "toFixed") : value.toFixed(digits));
    const exponential = (value, digits) => toEven(value, digits, "toExponential");
    const grouped = (text) => text.replace(/^-?\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, ","));
    const withMinus = (text) => text.replaceAll("-", MINUS);
    const isMeasured = (value) => typeof value === "number" && Number.isFinite(value);

    const plain = (value) => {
        const size = Math.abs(value);
        if (size !== 0 && (size < 1e-4 || size >= 1e6)) return withMinus(exponential(value, 2));
        if (size > 0 && size < 0.1) return withMinus(fixed(value, 2 - Math.floor(Math.log10(size))));
        if (size >= 1000) return withMinus(grouped(fixed(value, 0)));
        if (size >= 100) return withMinus(fixed(value, 1));
        return withMinus(fixed(value, size < 10 ? 3 : 2));
    };

    // `0.026 ± 0.002 nats`
    const number = (value, unit = "", error = null) => {
        if (!isMeasured(value)) return NOT_MEASURED;
        const behind = unit ? " " + unit : "";
        if (!isMeasured(error) || error <= 0) return plain(value) + behind;
        const digits = Math.max(0, 1 - Math.floor(Math.log10(error)));
        const both = digits > 6 ? exponential(value, 2) + " ± " + exponential(error, 0)
            : grouped(fixed(value, digits)) + " ± " + grouped(fixed(error, digits));
        return withMinus(both) + behind;
    };

    // A share of one as `2.4 %`.
    const percent = (share) => (isMeasured(share) ? withMinus(fixed(100 * share, 1)) + " %" : NOT_MEASURED);

    // `1,234`
    const count = (whole) => withMinus(grouped(String(whole)));

    // A token as people can see it. What would be drawn as nothing, or would turn the letters around it, is shown by a mark.
    const MARKS = new Map([[" ", "·"], ["\n", "↵"], ["\t", "⇥"], ["\r", "\\r"], ["\u00a0", "⍽"]]);
    const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Z}]/u;
    const mark = (character) => {
        if (MARKS.has(character)) return MARKS.get(character);
        const code = character.codePointAt(0);
        if (code < 32) return "\\x" + code.toString(16).padStart(2, "0");
        return HIDDEN.test(character) ? "\\u" + code.toString(16).padStart(4, "0") : character;
    };
    const visible = (token) => [...token].map(mark).join("") || "∅";

    return { number, percent, count, visible };
})();
