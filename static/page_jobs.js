// Cancelling a job, wherever its button stands.
(() => {
    const { refused, failed } = window.calibroscopeStream;
    const changed = () => window.dash_clientside.set_props("jobs-changed", { data: Date.now() });
    const cancel = async (button) => {
        const errors = document.getElementById("jobs-failed");
        errors.replaceChildren();
        button.disabled = true;
        try {
            const answer = await window.calibroscopeWrite("/jobs/" + button.dataset.cancelJob + "/cancel");
            if (!answer.ok) failed(errors, await refused(answer));
        } catch {
            failed(errors, "The service could not be reached. Is it running?");
        }
        button.disabled = false;
        changed();
    };
    document.addEventListener("click", (event) => {
        const button = event.target.closest("[data-cancel-job]");
        if (button) cancel(button);
    });
})();
