// Cancelling a job, wherever its button stands.
(() => {
    const { byId, set, addFailure } = window.calibroscopeDom;
    const { UNREACHABLE, refusal, write } = window.calibroscopeStream;
    const cancel = async (button) => {
        const errors = byId("jobs-failed");
        errors.replaceChildren();
        button.disabled = true;
        try {
            const answer = await write("/jobs/" + button.dataset.cancelJob + "/cancel");
            if (!answer.ok) addFailure(errors, await refusal(answer));
        } catch {
            addFailure(errors, UNREACHABLE);
        }
        button.disabled = false;
        set("jobs-changed", { data: Date.now() });
    };
    document.addEventListener("click", (event) => {
        const button = event.target.closest("[data-cancel-job]");
        if (button) cancel(button);
    });
})();
