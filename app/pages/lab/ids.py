"""The Text lab's component ids: its callbacks live in several files."""

MODEL, TEXT, EXAMPLE, WATCH, ANALYSE = "lab-model", "lab-text", "lab-example", "lab-watch", "lab-analyse"
MESSAGE, MODELS, INTRODUCTION, NOTES = "lab-message", "lab-models", "lab-introduction", "lab-notes"
NEURON, ADD, ROWS, SHAPE, CHOSEN = "lab-neuron", "lab-add", "lab-rows", "lab-shape", "lab-chosen"
KIND, VALUE, SLIDER, REMOVE = "lab-kind", "lab-value", "lab-slider", "lab-remove"
"""Types of pattern-matching ids; the other key is `neuron`."""
TRACED, TOKEN = "lab-traced", "lab-token"
"""What the page keeps of its text, and the chosen token's position."""
STRIPS, CHANGES, PINNED = "lab-strips", "lab-changes", "lab-pinned"
"""What the browser draws: of the text, of what interventions change in it, of pinned neurons. It is not sent back."""
CANVAS, TEXT_CANVAS, CHANGES_CANVAS, PINNED_CANVAS = (
    "lab-canvas", "lab-text-canvas", "lab-changes-canvas", "lab-pinned-canvas",
)  # fmt: skip
TEXT_PANEL, PINNED_HEAD, RESULT, DETAIL, WHO = (
    "lab-text-panel", "lab-pinned-head", "lab-result", "lab-detail", "lab-who",
)  # fmt: skip
RESTORED, UNDO, COPY, STATUS, PAST = "lab-restored", "lab-undo", "lab-copy", "lab-status", "lab-past"
GO_ON, GENERATE, STOP, TEMPERATURE = "lab-go-on", "lab-generate", "lab-stop", "lab-temperature"
SEED, LENGTH, GENERATED = "lab-seed", "lab-length", "lab-generated"
