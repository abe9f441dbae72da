"""The induction page's component ids: several files have its callbacks, and static/page_induction*.js know them too."""

ROOT, OFFER, AUTO = "induction-root", "induction-offer", "induction-auto"
MODEL, RUN, SOURCE = "induction-model", "induction-run", "induction-source"
TEXT, TEXT_BOX = "induction-text", "induction-text-box"
SEQUENCES, SPAN, NEURONS, PARTS = "induction-sequences", "induction-span", "induction-neurons", "induction-parts"
TOP_HEADS, HEADS, SEED = "induction-top-heads", "induction-heads", "induction-seed"
KNOCKED_OUT_AT = "induction-knocked-out-at"
GO, CANCEL, COPY, STATUS = "induction-go", "induction-cancel", "induction-copy", "induction-status"
PROGRESS, DOING, FAILED = "induction-progress", "induction-doing", "induction-failed"
DEFAULTS, MESSAGE, INTRODUCTION, SUMMARY, REST = (
    "induction-defaults", "induction-message", "induction-introduction", "induction-summary", "induction-rest",
)  # fmt: skip
PHASE, START, CURVES, CLIPS = "induction-phase", "induction-start", "induction-curves", "induction-clips"
CHANGE, HEAD_SCORES = "induction-change", "induction-head-scores"
KNOCKOUTS, ATTRIBUTION = "induction-knockouts", "induction-attribution"
PANEL, WAITING, BODY = "induction-panel", "induction-waiting", "induction-body"
"""Types of pattern-matching ids; the other key is `panel`."""
SHOWN, QUEUE, NOTICE = "induction-shown", "induction-queue", "induction-notice"
JOBS, JOBS_POLL = "induction-jobs", "induction-jobs-poll"
POINTS_OF, AGAINST, HEAD_GRAPH = "induction-points-of", "induction-against", "induction-head-graph"
