// Generate on: reads the service's stream of tokens and lets the two continuations grow side by side.
window.calibroscopeLabGeneration = (() => {
    const { byId, set, unchanged, element, addFailure } = window.calibroscopeDom;
    const { number, percent, visible } = window.calibroscopeFormat;
    const { UNREACHABLE, post, refusal, events } = window.calibroscopeStream;
    const box = () => byId("lab-generated");
    let running = null;

    // The service may have restarted or made room: the text is still here, so it is sent again.
    const postAgain = async (traced, body, signal) => {
        const answer = await post("/texts/" + traced.id + "/generate", body, signal);
        if (answer.status !== 404) return answer;
        const again = await post("/models/" + encodeURIComponent(traced.model) + "/texts", { text: traced.text }, signal);
        if (!again.ok) return again;
        return post("/texts/" + (await again.json()).id + "/generate", body, signal);
    };

    // The two columns, after the last of the tokens before, which are written as the strips write them; `add` appends a
    // step, marking tokens that are not the same in both.
    const columns = (before, both) => {
        const frame = element("div", "generated" + (both ? " both" : ""));
        const column = (title) => {
            const section = element("section", ""), tokens = element("div", "strip");
            section.append(element("h3", "", title), tokens);
            const tail = before.slice(-8).join("");
            tokens.append(element("span", "generated-tail", (before.length > 8 ? "…" : "") + tail));
            frame.append(section);
            return tokens;
        };
        const plain = column("As the model is"), changed = both ? column("With the interventions") : null;
        let steps = 0, partedAt = null;
        const append = (place, token, differs) => {
            if (!place || !token) return;
            const piece = element("span", "tok" + (differs ? " differs" : ""), visible(token.token));
            piece.title = visible(token.token) + "\nprobability " + percent(token.probability) + ", drawn from a prediction of entropy " +
                number(token.entropy, "nats") + (differs ? "\nnot the same in both" : "");
            place.append(piece);
            if (token.token.endsWith("\n")) place.append(element("br"));
        };
        return {
            frame,
            add(step) {
                steps += 1;
                const differs = both && (step.plain || {}).token_id !== (step.changed || {}).token_id;
                if (differs && partedAt === null) partedAt = steps;
                append(plain, step.plain, differs);
                append(changed, step.changed, differs);
            },
            inWords() {
                if (!both) return "Add an intervention to see a second continuation beside this one.";
                return partedAt === null ? "Both are the same." : "They part at generated token " + partedAt + ".";
            },
            steps: () => steps,
        };
    };
    const REASONS = {
        length: "", end_of_text: " The model ended the text.", context_full: " The model's context is full.",
    };

    const stop = () => { if (running) running.abort(); };

    const go = async (place, traced, before, body, control) => {
        const status = element("p", "quiet", "Beginning…");
        status.setAttribute("role", "status");
        const view = columns(before, body.interventions.length > 0);
        place.replaceChildren(status, view.frame);
        try {
            const answer = await postAgain(traced, body, control.signal);
            if (!answer.ok) {
                place.replaceChildren();
                addFailure(place, await refusal(answer));
                return;
            }
            let reference = "", ended = false;
            for await (const event of events(answer)) {
                if (!place.isConnected) control.abort();
                if (event.kind === "start") {
                    reference = body.interventions.length ? " Reference: " + event.reference + "." : "";
                    status.textContent = "Generating…";
                } else if (event.kind === "step") view.add(event);
                else {
                    ended = true;
                    if (event.kind === "problem") { status.textContent = view.inWords(); addFailure(place, event.problem.detail); }
                    else status.textContent = event.steps + " tokens in " + event.seconds.toFixed(1) + " s (" +
                        (event.steps / Math.max(event.seconds, 1e-3)).toFixed(1) + " a second)." + REASONS[event.reason] +
                        " " + view.inWords() + reference;
                }
            }
            if (!ended) addFailure(place, "The connection was lost after " + view.steps() + " tokens. Generate again.");
        } catch {
            if (control.signal.aborted) status.textContent = "Stopped after " + view.steps() + " tokens. " + view.inWords();
            else addFailure(place, UNREACHABLE);
        }
    };

    const begin = (_, traced, strips, chosen, temperature, seed, length) => {
        const place = box();
        if (!place || !traced || !strips) return unchanged();
        stop();
        const given = (value, otherwise) => (typeof value === "number" ? value : otherwise);
        const body = {
            interventions: (chosen || []).map(({ neuron, kind, value }) => ({ neuron, kind, value })),
            temperature: given(temperature, 0.8), seed: given(seed, 1), max_tokens: given(length, 60),
        };
        const control = (running = new AbortController());
        set("lab-stop", { disabled: false });
        go(place, traced, strips.tokens, body, control).finally(() => {
            if (running !== control) return;
            running = null;
            if (place.isConnected) set("lab-stop", { disabled: true });
        });
        return unchanged();
    };

    const stopNow = () => {
        stop();
        return unchanged();
    };

    // Another text: what was generated from the one before does not go on from it.
    const forget = () => {
        stop();
        const place = box();
        if (place) place.replaceChildren();
        return unchanged();
    };

    return { columns, begin, stop: stopNow, forget };
})();
