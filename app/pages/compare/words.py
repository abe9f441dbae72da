"""What the compare page says of two runs: what was measured, how far it agrees, and how sure that is."""

from collections.abc import Callable

from app.notation.numbers import bound, number, signed
from backend.glossary import CLASS_LABELS, METRIC, PAPER_CRITERION_LABEL
from backend.schemas import Changes, Comparison, MetricAgreement, RunSummary, SharedClass

_RARELY = 0.05
_NEARLY_ALL = 0.95
"""Of what a correlation lacks to 1: a noise ceiling is known no better."""
PAIRED_NOTE = (
    "Rank correlation: Spearman's over the neurons that have a value in both runs; the 95 % interval is over neurons, "
    "what another layer of as many such neurons could give. Noise ceiling: what two samples with these standard errors "
    "would agree to were the neurons the very same, each neuron's noise taken as its own; none where most is noise. "
    "Mean difference: second − first, with the most that its standard error can be, however these go together."
)
LARGER_NOTE = (
    "Larger in the second: how often a neuron of the second run, drawn at random, has the larger value than one of the "
    "first; 50 % where neither has, ± one standard error over neurons. Medians are over all neurons of a run."
)


def p_value(value: float) -> str:
    """`0.03`, `2e−9`; below 10⁻³⁰⁰ it is said to be below that."""
    if value < 1e-300:
        return "below 1e−300"
    return f"{value:.2g}".replace("-", "−").replace("e−0", "e−")


def introduction(comparison: Comparison) -> list[str]:
    """Which neurons are compared and why, and whether pairs of them have anything in common."""
    sentences = [comparison.reason]
    if comparison.a.run.id == comparison.b.run.id:
        return [*sentences, "It is one run beside itself: every correlation is 1 and every difference 0."]
    if comparison.same_weights:
        sentences.append("Their weights are the same, so that what is measured of weights alone is equal in both.")
    elif comparison.related is False:
        sentences.append(
            "But what neurons of one index write has no more in common than that of neurons paired at random (their "
            "weight norms, logit variances and null-space fractions are uncorrelated): the two were trained apart, and "
            "nothing below that compares neuron with neuron means anything."
        )
    return sentences


def cautions(comparison: Comparison) -> list[str]:
    """What makes two runs differ, or look alike, besides their neurons."""
    a, b = comparison.a.run, comparison.b.run
    if a.id == b.id:
        return []
    checks: list[Callable[[RunSummary, RunSummary, Comparison], str | None]] = [
        _unfinished, _text, _lengths, _errors, _survey, _null_dim, _beginning, _frequencies,
    ]  # fmt: skip
    return [sentence for check in checks if (sentence := check(a, b, comparison)) is not None]


def _unfinished(a: RunSummary, b: RunSummary, _: Comparison) -> str | None:
    open_runs = [run for run in (a, b) if run.status != "finished"]
    if not open_runs:
        return None
    listed = " and ".join(
        f"run {run.id} ({run.status}, {run.tokens_counted:,} of {run.tokens_total:,} tokens counted)"
        for run in open_runs
    )
    return f"Not finished: {listed}. What is shown is of the part that is there."


def _text(a: RunSummary, b: RunSummary, comparison: Comparison) -> str | None:
    if comparison.same_text:
        return (
            "Both measured the very same tokens, so their noise goes together: true errors of differences are smaller "
            "than those given here, z is larger, and correlations may be above their noise ceilings."
        )
    if a.corpus != b.corpus:
        return f"The texts differ: {a.corpus} and {b.corpus}. What follows is of model and text together."
    return None


def _lengths(a: RunSummary, b: RunSummary, _: Comparison) -> str | None:
    if a.seq_len == b.seq_len:
        return None
    return (
        f"Sequences have {a.seq_len:,} tokens in run {a.id} and {b.seq_len:,} in run {b.id}: with less before them "
        "tokens are predicted less well, so that effects differ in both by more than their errors say."
    )


def _errors(a: RunSummary, b: RunSummary, _: Comparison) -> str | None:
    early = [run for run in (a, b) if run.error_groups is None and run.tokens_counted]
    if early:
        return (
            f"Run {early[0].id} took the tokens of a sequence as independent: its errors are too small, so that no "
            "chance line can be drawn for changes."
        )
    single = [run for run in (a, b) if run.error_groups is not None and run.error_groups < 2]
    if single:
        return f"Run {single[0].id} has one sequence and so no errors: changes are listed by their size alone."
    return None


def _survey(a: RunSummary, b: RunSummary, _: Comparison) -> str | None:
    surveys = [run for run in (a, b) if run.mode == "survey"]
    if not surveys:
        return None
    listed = " and ".join(f"run {run.id}" for run in surveys)
    worst = max(run.tolerance_nats for run in surveys)
    return (
        f"Surveyed, not exact: {listed}. A token's effects are within {bound(worst, 'nats')} there, which no standard "
        "error has in it."
    )


def _null_dim(a: RunSummary, b: RunSummary, _: Comparison) -> str | None:
    if a.null_dim == b.null_dim:
        return None
    return (
        f"The null space has k = {a.null_dim} directions in run {a.id} and {b.null_dim} in run {b.id}: null-space "
        "fractions, and classes that go by them, are not of the same thing."
    )


def _beginning(a: RunSummary, b: RunSummary, _: Comparison) -> str | None:
    begun = [None if run.card is None or run.card.bos is None else run.card.bos.short for run in (a, b)]
    if None in begun or begun[0] == begun[1]:
        return None
    return f"Sequences begin differently: {begun[0]} in run {a.id}, {begun[1]} in run {b.id}."


def _frequencies(a: RunSummary, b: RunSummary, _: Comparison) -> str | None:
    sources = [run.config.get("frequency_source") for run in (a, b)]
    if None in sources or sources[0] == sources[1]:
        return None
    return (
        f"Token frequencies come from {sources[0]} in run {a.id} and from {sources[1]} in run {b.id}: metrics of token "
        "frequency are not of the same direction."
    )


def agreement(one: MetricAgreement, comparison: Comparison) -> str:
    """The rank correlation of a metric, how sure it is, and what noise explains of its distance from 1."""
    label = METRIC[one.metric].label
    if not one.pairs:
        return f"{label} is not measured in both runs."
    if one.rank_correlation is None:
        return f"{label} does not vary in one of the runs: there is no correlation."
    sentences = [
        f"Spearman's rank correlation of {label} in the two runs is {number(one.rank_correlation)}{_interval(one)}."
    ]
    if one.mean_difference_error is not None and comparison.a.run.id != comparison.b.run.id:
        sentences.append(_noise(one, bool(comparison.same_text)))
    if one.mean_difference is not None:
        sentences.append(_difference(one, one.mean_difference))
    return " ".join(sentences)


def _interval(one: MetricAgreement) -> str:
    if one.low is None or one.high is None:
        return f" over {one.pairs:,} neurons, too few for an interval"
    return f" (95 % interval {number(one.low)} to {number(one.high)}, over {one.pairs:,} neurons)"


def _noise(one: MetricAgreement, same_text: bool) -> str:
    if one.noise_ceiling is None:
        return "Noise is the greater part of how neurons differ, or there are few of them: no ceiling can be given."
    could = f"Two samples of this size of the very same neurons would agree to about {number(one.noise_ceiling)}"
    if same_text:
        return f"{could} if they were of different text."
    lacking = 1 - (one.rank_correlation or 0.0)
    share = min(1.0, (1 - one.noise_ceiling) / lacking) if lacking > 0 else 1.0
    explained = "all" if share > _NEARLY_ALL else f"about {100 * share:.0f} % of what"
    return f"{could}: noise explains {explained} {'that ' if share > _NEARLY_ALL else ''}is lacking to 1."


def _difference(one: MetricAgreement, difference: float) -> str:
    unit = METRIC[one.metric].unit
    mean = f"The mean over neurons changes by {signed(difference, unit)}"
    if one.mean_difference_error is None:
        return f"{mean}."
    return f"{mean}, with a standard error of at most {number(one.mean_difference_error, unit)}."


def changes(found: Changes, one: MetricAgreement, same_run: bool) -> str:
    """How many neurons have changed by more than chance."""
    label = METRIC[found.metric].label
    if same_run or not found.rows:
        return "Nothing has changed." if same_run else f"{label} is not measured in both runs."
    if found.by == "difference":
        return f"{label} has no standard error in both runs, so that no difference can be called chance: the largest."
    if found.line is None or found.beyond is None:
        return "The largest |z|. The errors do not say how large it gets by chance."
    line = f"|z| = {number(found.line)}, which the largest of {one.pairs:,} exceeds one time in twenty if none differs"
    if not found.beyond:
        return f"No neuron has changed by more than chance: none is beyond {line}."
    have = "neuron has" if found.beyond == 1 else "neurons have"
    return f"{found.beyond:,} {have} changed by more than chance: beyond {line}."


def class_name(one: SharedClass) -> str:
    """A class in the plural, or those with the paper's mark."""
    if one.name == "paper_criterion":
        return f"Neurons by the {PAPER_CRITERION_LABEL.lower()}"
    return f"{CLASS_LABELS[one.name]}s"


def shared(one: SharedClass) -> str:
    """How much two runs share of a class, beside chance."""
    name = class_name(one)
    if not one.in_a and not one.in_b:
        return f"{name}: neither run has any."
    if not one.in_a or not one.in_b:
        return f"{name}: one of the runs has none."
    by = "by more than chance" if one.p_value < _RARELY else "no more than by chance"
    return (
        f"{name} are shared {by}: {one.in_both:,} of {one.in_a:,} and {one.in_b:,} are in both, where as many drawn at "
        f"random share {number(one.expected)} on average (P = {p_value(one.p_value)} that they share as many)."
    )
