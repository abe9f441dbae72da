// The page's elements and Dash's properties, as every other script here reads and sets them.
window.calibroscopeDom = (() => {
    // Elements that take keys and typing for themselves.
    const TYPING = "input, textarea, select, [contenteditable]";

    const byId = (id) => document.getElementById(id);
    const set = (id, props) => window.dash_clientside.set_props(id, props);
    const unchanged = () => window.dash_clientside.no_update;
    const triggered = () => window.dash_clientside.callback_context.triggered_id;

    // Text is data: it is set as text, never read as markup.
    const element = (tag, className = "", text = null) => {
        const made = document.createElement(tag);
        if (className) made.className = className;
        if (text !== null) made.textContent = text;
        return made;
    };

    const write = (id, sentence) => {
        const place = byId(id);
        if (place) place.textContent = sentence;
    };

    // The browser's twin of `failure` in app/components/states.py.
    const addFailure = (place, sentence) => {
        const box = element("div", "state error");
        box.setAttribute("role", "alert");
        box.append(element("strong", "", "This did not work. "), sentence);
        place.append(box);
    };

    // Whether the browser allowed it.
    const copyText = async (text) => {
        try {
            await navigator.clipboard.writeText(text);
            return true;
        } catch {
            return false;
        }
    };

    return { TYPING, byId, set, unchanged, triggered, element, write, addFailure, copyText };
})();
