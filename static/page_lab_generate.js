// Generate on: reads the service's stream of tokens and lets the two continuations grow side by side.
(() => {
    const set = (id, props) => window.dash_clientside.set_props(id, props);
    const nothing = () => window.dash_clientside.no_update;
    const box = () => document.getElementById("lab-generated");
    let running = null;

    const made = (tag, className, text) => {
        const element = document.createElement(tag);
        if (className) element.className = className;
        if (text !== undefined) element.textContent = text;
        return element;
    };
    const MARKS = { " ": "·", "\n": "↵", "\t": "⇥", "\r": "␍" };
    const visible = (token) => token.replace(/[ \n\t\r]/g, (letter) => MARKS[letter]) || "∅";

    const { post, refused, events, failed } = window.calibroscopeStream;
    // The service may have restarted or made room: the text is still here, so it is sent again.
    const begin = async (held, body, signal) => {
        const answer = await post("/texts/" + held.trace.id + "/generate", body, signal);
        if (answer.status !== 404) return answer;
        const again = await post("/models/" + encodeURIComponent(held.trace.model) + "/texts", { text: held.text }, signal);
        if (!again.ok) return again;
        return post("/texts/" + (await again.json()).id + "/generate", body, signal);
    };

    // The two columns; `add` appends a step, marking tokens that are not the same in both.
    const columns = (held, both) => {
        const frame = made("div", "generated" + (both ? " both" : ""));
        const column = (title) => {
            const section = made("section", ""), tokens = made("div", "strip");
            section.append(made("h3", "", title), tokens);
            const tail = held.trace.tokens.slice(-8).map(visible).join("");
            tokens.append(made("span", "generated-tail", (held.trace.tokens.length > 8 ? "…" : "") + tail));
            frame.append(section);
            return tokens;
        };
        const plain = column("As the model is"), changed = both ? column("With the interventions") : null;
        let steps = 0, parted = null;
        const append = (place, token, differs) => {
            if (!place || !token) return;
            const piece = made("span", "tok" + (differs ? " differs" : ""), visible(token.token));
            piece.title = visible(token.token) + "\nprobability " + (100 * token.probability).toFixed(1) + " %, drawn from a prediction of entropy " +
                token.entropy.toFixed(3) + " nats" + (differs ? "\nnot the same in both" : "");
            place.append(piece);
            if (token.token.endsWith("\n")) place.append(made("br"));
        };
        return {
            frame,
            add(step) {
                steps += 1;
                const differs = both && (step.plain || {}).token_id !== (step.changed || {}).token_id;
                if (differs && parted === null) parted = steps;
                append(plain, step.plain, differs);
                append(changed, step.changed, differs);
            },
            told() {
                if (!both) return "Add an intervention to see a second continuation beside this one.";
                return parted === null ? "Both are the same." : "They part at generated token " + parted + ".";
            },
            steps: () => steps,
        };
    };
    const REASONS = {
        length: "", end_of_text: " The model ended the text.", context_full: " The model's context is full.",
    };

    const stop = () => { if (running) running.abort(); };

    const go = async (place, held, body, control) => {
        const said = made("p", "quiet", "Beginning…");
        said.setAttribute("role", "status");
        const view = columns(held, body.interventions.length > 0);
        place.replaceChildren(said, view.frame);
        try {
            const answer = await begin(held, body, control.signal);
            if (!answer.ok) {
                place.replaceChildren();
                failed(place, await refused(answer));
                return;
            }
            let reference = "", ended = false;
            for await (const event of events(answer)) {
                if (!place.isConnected) control.abort();
                if (event.kind === "start") {
                    reference = body.interventions.length ? " Reference: " + event.reference + "." : "";
                    said.textContent = "Generating…";
                } else if (event.kind === "step") view.add(event);
                else {
                    ended = true;
                    if (event.kind === "problem") { said.textContent = view.told(); failed(place, event.problem.detail); }
                    else said.textContent = event.steps + " tokens in " + event.seconds.toFixed(1) + " s (" +
                        (event.steps / Math.max(event.seconds, 1e-3)).toFixed(1) + " a second)." + REASONS[event.reason] +
                        " " + view.told() + reference;
                }
            }
            if (!ended) failed(place, "The connection was lost after " + view.steps() + " tokens. Generate again.");
        } catch (error) {
            if (control.signal.aborted) said.textContent = "Stopped after " + view.steps() + " tokens. " + view.told();
            else failed(place, "The service could not be reached. Is it running?");
        }
    };

    Object.assign(window.calibroscope, {
        generate(_, held, chosen, temperature, seed, length) {
            const place = box();
            if (!place || !held) return nothing();
            stop();
            const given = (value, otherwise) => (typeof value === "number" ? value : otherwise);
            const body = {
                interventions: (chosen || []).map(({ neuron, kind, value }) => ({ neuron, kind, value })),
                temperature: given(temperature, 0.8), seed: given(seed, 1), max_tokens: given(length, 60),
            };
            const control = (running = new AbortController());
            set("lab-stop", { disabled: false });
            go(place, held, body, control).finally(() => {
                if (running !== control) return;
                running = null;
                if (place.isConnected) set("lab-stop", { disabled: true });
            });
            return nothing();
        },
        stopGenerating() {
            stop();
            return nothing();
        },
        // Another text: what was generated from the one before does not go on from it.
        forgetGenerated() {
            stop();
            const place = box();
            if (place) place.replaceChildren();
            return nothing();
        },
    });
})();
