// The induction page's controls: begin, cancel or queue what they ask for, and keep it in the address.
window.calibroscopeInduction = (() => {
    const SETTLE_MS = 200, LINKED_TEXT_MS = 2000;
    const { unchanged, addFailure, copyText } = window.calibroscopeDom;
    const { show, hashParameters } = window.calibroscopeAddress;
    // Dash loads these two after this script.
    const requests = () => window.calibroscopeInductionRequest;
    const page = () => window.calibroscopeInductionStreams;
    const rootOf = () => page().byId("root");

    let current = null, writing = 0;
    const showAddress = () => {
        const root = rootOf();
        if (root && current && window.location.pathname === "/induction") show(requests().address(current, root.job).link);
    };

    const markOutdated = (root) => {
        const isOther = root.measured && root.measured !== requests().decisive(current);
        const regions = ["induction-summary", ...[...root.querySelectorAll(".panel[id]")].map((panel) => panel.id)];
        window.calibroscopeOutdated.settings(regions, isOther ? "Of the settings before: press Run." : "");
    };

    const refused = (sentence) => {
        if (!sentence) return false;
        page().byId("failed").replaceChildren();
        addFailure(page().byId("failed"), sentence);
        return true;
    };
    const begin = (root, request) => {
        if (refused(requests().objection(request, Number(root.dataset.most)))) return;
        root.job = null;
        page().set("shown", { data: null });
        current = request;
        root.measured = requests().decisive(request);
        markOutdated(root);
        page().showExperiment(root, request);
        showAddress();
    };

    // A link's own text is set once, which calls `follow` again; until the box has it, what it holds is of another time.
    const withLinkedText = (root, request) => {
        if (root.linkedText === undefined) {
            root.linkedText = request.source === "text" ? hashParameters().get("text") : null;
            root.linkedUntil = performance.now() + LINKED_TEXT_MS;
            if (root.linkedText !== null) page().set("text", { value: root.linkedText });
        }
        if (root.linkedText === null) return request;
        if (request.text !== root.linkedText && performance.now() <= root.linkedUntil) return { ...request, text: root.linkedText };
        root.linkedText = null;
        return request;
    };

    const follow = (...given) => {
        const root = rootOf(), job = given.pop(), auto = given.pop();
        if (!root) return unchanged();
        if (root.visit !== root.dataset.visit)  // drawn anew, perhaps in the same element
            Object.assign(root, { visit: root.dataset.visit, begun: false, linkedText: undefined, job: null, measured: null });
        if (job && !root.begun) {
            root.begun = true;
            page().showJob(root, job.job);
        }
        current = withLinkedText(root, requests().fromControls(given));
        if (!current.model || !current.run) return unchanged();
        markOutdated(root);
        if (auto && !root.begun) {
            root.begun = true;
            begin(root, current);
        }
        window.clearTimeout(writing);
        writing = window.setTimeout(showAddress, SETTLE_MS);
        return unchanged();
    };

    const run = (_, ...given) => {
        const root = rootOf();
        if (root) {
            root.begun = true;
            begin(root, requests().fromControls(given));
        }
        return unchanged();
    };

    const queue = (_, ...given) => {
        const root = rootOf(), request = requests().fromControls(given);
        if (root) {
            root.begun = true;
            if (!refused(requests().objection(request))) page().queueJob(root, request).finally(showAddress);
        }
        return unchanged();
    };

    const cancel = () => {
        page().cancel();
        return unchanged();
    };

    const copyLink = async () => {
        const { say } = page();
        if (!current || !current.run) { say("status", "There is no run yet to link to."); return unchanged(); }
        const { link, isCut } = requests().address(current, rootOf().job);
        const isCopied = await copyText(window.location.origin + link);
        say("status", (isCopied ? "Copied." : "Copying is not allowed here: copy the address of this page.") +
            (isCut ? " The text is too long for a link: it is not in it." : ""));
        return unchanged();
    };

    // Another source: the usual length of its repeats, unless a person has chosen one.
    const sourced = (source, span, usual) => {
        const isChosen = Number.isInteger(span) && !Object.values(usual).includes(span);
        return [source === "text" ? {} : { display: "none" }, isChosen ? unchanged() : usual[source]];
    };

    return { follow, run, queue, cancel, copyLink, sourced };
})();
