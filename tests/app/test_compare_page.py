"""The compare page: which runs it chooses, what it says of them and how sure, and one text through both models."""

from typing import Any

import pytest
from dash import no_update

from app.pages.compare import page as compare
from app.pages.compare import texts, words
from app.pages.compare.state import CompareSettings as Settings
from app.pages.compare.state import choose_pair, chosen_names, with_clicked
from backend import schemas
from backend.client import ApiError
from tests.app import sample
from tests.app.pages import Service, body_of, text_of

pytestmark = pytest.mark.anyio

FIRST, SECOND = sample.run(id=1), sample.run(id=2, seed=1)
OTHER_MODEL = sample.model().model_copy(update={"id": "other", "name": "Other <b>", "latest_run": 7})
BODY, STYLE, SEEN, FINAL = 8, 9, 10, 11


def service(*runs: schemas.RunSummary, models: int = 1, **answers: Any) -> Service:
    """An atlas with runs of the first model, and with run 7 of a second one where there are two."""
    found = list(runs) or [FIRST, SECOND]

    def listed(call: Any) -> schemas.RunList:
        return schemas.RunList(runs=[sample.run(id=7, model="other")] if "/other/" in call.path else found)

    newest = sample.model().model_copy(update={"latest_run": found[0].id, "n_runs": len(found)})
    known: dict[str, Any] = {
        "models": lambda _: schemas.ModelList(models=[newest, OTHER_MODEL][:models]),
        "runs": listed,
        "compare": lambda _: sample.comparison(),
        "columns": lambda call: sample.columns(call.params["name"]),
        "spectrum": lambda _: sample.spectrum(),
        "texts": lambda _: sample.trace(),
    }
    return Service(**(known | answers))


async def body_of_page(asked: Settings = Settings(), **answers: Any) -> str:
    return " ".join(text_of((await compare.shown(service(**answers), asked, None))[BODY]).split())


async def test_two_runs_are_shown_with_all_that_is_known_of_them() -> None:
    shown = await compare.shown(service(), Settings(), None)
    assert [shown[place] for place in (1, 3, 5, 7)] == ["tiny", "1", "tiny", "2"], "the newest other run of the model"
    said = " ".join(text_of(shown[BODY]).split())
    for word in (
        "Spearman's rank correlation of Total effect TE", "0.910 (95 % interval 0.880 to 0.930, over 40 neurons)",
        "noise explains about 89 % of what is lacking to 1", "standard error of at most",
        "1 neuron has changed by more than chance",
        "Entropy neurons are shared by more than chance: 2 of 3 and 2", "share 0.150 on average",
        "P = 0.0038", "29.9", "Figure 6",
        "of the time; 50 % where neither has", "over 4 and 4 groups",
    ):  # fmt: skip
        assert word in said
    assert (shown[STYLE], shown[FINAL]) == ({}, True)
    again = await compare.shown(service(), Settings("tiny", "1", "tiny", "2"), shown[SEEN])
    assert again[BODY] is no_update
    other = await compare.shown(service(), Settings("tiny", "1", "tiny", "2", bars=True), shown[SEEN])
    assert other[BODY] is not no_update


async def test_one_run_alone_says_what_to_run_and_an_empty_atlas_too() -> None:
    shown = await compare.shown(service(FIRST), Settings(), None)
    assert "There is one run only" in text_of(shown[BODY])
    assert "calibroscope precompute --model tiny --seed 1" in text_of(shown[BODY])
    assert (shown[STYLE], shown[FINAL]) == ({"display": "none"}, False)
    empty = await compare.shown(service(models=0), Settings(), None)
    assert "No neurons yet" in text_of(empty[BODY])
    assert empty[FINAL] is False


async def test_a_run_beside_itself_is_shown_where_it_is_asked_for() -> None:
    same = sample.comparison(FIRST, FIRST, same_weights=True, same_text=True)
    said = await body_of_page(Settings(other="1"), compare=lambda _: same)
    assert "one run beside itself: every correlation is 1" in said
    assert "Nothing has changed." in said
    assert "run 1 again" in said
    assert "What else differs" not in said


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (Settings(), ("1", "2")),
        (Settings(run="2"), ("2", "1")),
        (Settings(other_model="tiny"), ("1", "2")),
        (Settings(other_model="other"), ("1", "7")),
        (Settings(other="1"), ("1", "1")),
        (Settings("other"), ("7", "1")),
        (Settings("gone", "88", "gone", "99"), ("1", "1")),
    ],
)  # fmt: skip
async def test_runs_are_chosen(asked: Settings, chosen: tuple[str, str]) -> None:
    selects = (await choose_pair(service(models=2), asked)).selects
    assert (selects[3], selects[7]) == chosen


async def test_runs_that_the_address_asks_for_and_are_gone_are_named() -> None:
    said = await body_of_page(Settings("tiny", "88", "tiny", "99"))
    assert "asks for run 88" in said
    assert "asks for run 99" in said


async def test_runs_at_their_beginning_and_a_silent_service() -> None:
    refusal = "Run 2 has not measured its neurons yet (it is running). Wait for it."

    def refused(_: Any) -> Any:
        raise ApiError(schemas.Problem(title="Not there", status=404, detail=refusal))

    growing = sample.run(id=2, status="running", stage="queued", tokens_counted=0)
    found = service(FIRST, growing, compare=refused)
    shown = await compare.shown(found, Settings(), None)
    assert refusal in text_of(shown[BODY])
    assert shown[FINAL] is False, "it is asked for again"
    with pytest.raises(ApiError):
        await compare.shown(Service(), Settings(), None)


async def test_a_part_that_is_missing_leaves_the_rest() -> None:
    said = await body_of_page(spectrum=None, columns=None)
    assert "nothing at /runs/1/spectrum" in said
    assert "nothing at /runs/1/columns" in said
    assert "Who has changed most" in said


async def test_neurons_that_do_not_correspond_are_not_compared() -> None:
    apart = [
        one.model_copy(update={"pairs": 0, "rank_correlation": None, "low": None, "high": None, "noise_ceiling": None})
        for one in sample.comparison().metrics
    ]
    other = sample.comparison(
        corresponds=False, reason="They differ in their widths.", related=None, metrics=apart, classes=[], changes=None
    )
    said = await body_of_page(compare=lambda _: other)
    assert "They differ in their widths." in said
    assert "how it is distributed" in said
    assert "Larger in the second" in said
    for word in ("against itself", "Spearman", "Who has", "changed most"):
        assert word not in said


async def test_a_metric_without_errors_or_without_values() -> None:
    changes = schemas.Changes(
        metric="max_activation",
        by="difference",
        line=None,
        beyond=None,
        rows=sample.comparison().changes.rows,  # type: ignore[union-attr]
    )
    said = await body_of_page(Settings(metric="max_activation"), compare=lambda _: sample.comparison(changes=changes))
    assert "no difference can be called chance" in said
    bare = [
        one.model_copy(update={"pairs": 0, "rank_correlation": None, "larger_share": None})
        for one in sample.comparison().metrics
    ]
    nothing = sample.comparison(
        metrics=bare, changes=schemas.Changes(metric="x", by="difference", line=None, beyond=None, rows=[])
    )
    said = await body_of_page(
        compare=lambda _: nothing, columns=lambda call: sample.columns(call.params["name"], measured=False)
    )
    assert "Total effect TE is not measured in both runs." in said
    assert "Neither run has a value of" in said


async def test_chosen_neurons_have_their_numbers_and_links_and_others_are_named() -> None:
    shown = await compare.shown(service(), Settings(neurons="29.7, 29.99, <b>"), None)
    assert "Left out: <b>, 29.99" in text_of(shown[BODY])
    assert "/m/tiny/n/29/7?run=1" in str(shown[BODY])
    assert "/m/tiny/n/29/7?run=2" in str(shown[BODY])


@pytest.mark.parametrize(
    ("written", "clicked", "after"),
    [(None, "29.7", "29.7"), ("29.7", "29.8", "29.7, 29.8"), ("29.7, 29.8", "29.7", "29.8"), ("29.7", None, None),
     ("29.7", "<b>", None), ("29.7", {"x": 1}, None)],
)  # fmt: skip
async def test_a_click_chooses_a_neuron_and_another_lets_it_go(written: Any, clicked: Any, after: str | None) -> None:
    assert with_clicked(written, clicked) == after
    names = ", ".join(f"1.{n}" for n in range(20))
    assert len(chosen_names(names)[0]) == 12
    assert len(chosen_names(with_clicked(names, "2.1"))[0]) == 12


@pytest.mark.parametrize("clicked", [None, {}, {"points": []}, {"points": [3]}, {"points": "x"}, [1]])
async def test_what_is_no_click_chooses_nothing(clicked: Any) -> None:
    assert compare.clicked_neuron(clicked) is None
    assert compare.clicked_neuron({"points": [{"customdata": "29.7"}]}) == "29.7"


async def test_what_else_differs_is_said() -> None:
    open_run = sample.run(id=2, status="running", stage="effects", corpus="news", null_dim=6, seq_len=64,
                          error_groups=None, mode="survey", tolerance_nats=8e-4,
                          config={"frequency_source": "counts"})  # fmt: skip
    first = sample.run(config={"frequency_source": "the model's mean"})
    said = " ".join(words.cautions(sample.comparison(first, open_run)))
    for word in (
        "Not finished: run 2 (running, 50 of 50", "words and news", "took the tokens of a sequence as independent",
        "Surveyed, not exact: run 2", "k = 2 directions in run 1 and 6", "Sequences have 16 tokens in run 1 and 64",
        "Token frequencies come from the model's mean",
    ):  # fmt: skip
        assert word in said
    same = " ".join(words.cautions(sample.comparison(same_text=True)))
    assert "very same tokens" in same
    begun = sample.card(bos=schemas.CardSection(short="BOS", facts={}))
    assert "begin differently: no BOS in run 1, BOS in run 2" in " ".join(
        words.cautions(sample.comparison(second=sample.run(id=2, card=begun)))
    )
    single = sample.comparison(second=sample.run(id=2, error_groups=1))
    assert "one sequence and so no errors" in " ".join(words.cautions(single))
    assert words.cautions(sample.comparison()) == []


async def test_trainings_that_began_apart_are_called_so() -> None:
    said = " ".join(words.introduction(sample.comparison(related=False)))
    assert "trained apart" in said
    assert "weights are the same" in " ".join(words.introduction(sample.comparison(same_weights=True)))


@pytest.mark.parametrize(
    ("changes", "words_of_it"),
    [
        ({"noise_ceiling": 0.97}, "agree to about 0.970: noise explains about 33 % of what is lacking to 1."),
        ({"noise_ceiling": 0.905}, "noise explains all that is lacking to 1."),
        ({"noise_ceiling": None}, "Noise is the greater part of how neurons differ"),
        ({"low": None, "high": None}, "too few for an interval"),
        ({"rank_correlation": None}, "does not vary"),
        ({"noise_ceiling": None, "mean_difference_error": None}, "The mean over neurons changes by +0.00400 nats."),
    ],
)
async def test_how_sure_a_correlation_is_is_said(changes: dict[str, Any], words_of_it: str) -> None:
    whole = sample.comparison()
    one = next(one for one in whole.metrics if one.metric == "total_effect").model_copy(update=changes)
    assert words_of_it in words.agreement(one, whole)


async def test_how_many_have_changed_is_said_beside_chance() -> None:
    whole = sample.comparison()
    agreement, found = whole.metrics[0], whole.changes
    assert found is not None
    none = found.model_copy(update={"beyond": 0})
    assert "No neuron has changed by more than chance" in words.changes(none, agreement, False)
    unknown = found.model_copy(update={"line": None, "beyond": None})
    assert "do not say how large" in words.changes(unknown, agreement, False)
    shared = whole.classes[0]
    assert "neither run has any" in words.shared(shared.model_copy(update={"in_a": 0, "in_b": 0}))
    assert "one of the runs has none" in words.shared(shared.model_copy(update={"in_a": 0}))
    assert "no more than by chance" in words.shared(shared.model_copy(update={"p_value": 0.4}))
    assert [words.p_value(value) for value in (0.5, 3e-9, 0.0)] == ["0.5", "3e−9", "below 1e−300"]


async def test_the_address_sets_the_controls() -> None:
    page = str(compare.layout(model="tiny", run="3", other="4", metric="null_fraction", scale="log", bars="1"))
    for word in ("value='3'", "value='4'", "value='null_fraction'", "value='log'", "checked=True"):
        assert word in page
    wrong = str(compare.layout(run="three", metric="<b>", scale="cubic", neurons="x" * 1000))
    assert "value='total_effect'" in wrong
    assert "value='usual'" in wrong
    assert "three" not in wrong
    assert "x" * 301 not in wrong


def traced(name: str, tokens: list[str], *, loss: float = 1.0, bos: bool = False, **changes: Any) -> schemas.TextTrace:
    """A text as a model read it, every loss alike."""
    every = ["<s>", *tokens] if bos else tokens
    size = len(every)
    beginning = schemas.TextBeginning(token_id=0 if bos else None, token="<s>" if bos else None, reason="so")
    values = schemas.TokenValues(
        loss=[None, *[loss] * (size - 1)], entropy=[2.0] * size, rank=[None, *[1] * (size - 1)],
        norm_scale=[1.0] * size,
        residual_norm=[1.0] * size,
    )  # fmt: skip
    return sample.trace(
        id=name, model=name, tokens=every, token_ids=list(range(size)), values=values, predictions=[[]] * size,
        beginning=beginning, **changes,
    )  # fmt: skip


async def test_models_that_cut_alike_are_shown_token_by_token_with_differences() -> None:
    reads = {"tiny": traced("tiny", ["A", " lamp"], bos=True), "other": traced("other", ["A", " lamp"], loss=1.5)}
    found = service(models=2, texts=lambda call: reads[call.path.split("/")[2]])
    strips, said = await texts.through_both(found, "A lamp", "tiny", "other")
    assert strips is not None
    assert strips["tokens"] == ["A", "·lamp"]
    assert [one["title"] for one in strips["strips"]] == [
        "Loss, Tiny", "Loss, Other <b>", "Loss, Other <b> − Tiny", "Entropy, Tiny", "Entropy, Other <b>",
        "Entropy, Other <b> − Tiny",
    ]  # fmt: skip
    assert strips["strips"][2]["shown"] == ["—", "+0.500 nats"], "the second has no BOS, so nothing predicts its first"
    assert "the same 2 tokens" in text_of(said)
    assert "no error can be given" in text_of(said)


async def test_models_that_cut_differently_are_shown_by_stretches_whose_losses_add_up() -> None:
    reads = {
        "tiny": traced("tiny", ["A", " la", "mp", "."], bos=True),
        "other": traced("other", ["A", " lamp", "."], loss=1.5, bos=True, truncated=True),
    }
    found = service(models=2, texts=lambda call: reads[call.path.split("/")[2]])
    strips, said = await texts.through_both(found, "A lamp.", "tiny", "other")
    assert strips is not None
    assert strips["tokens"] == ["A", "·lamp", "."]
    assert [one["title"] for one in strips["strips"]][-1] == "Entropy, Other <b>", "no difference of two vocabularies"
    assert strips["strips"][2]["shown"] == ["+0.500 nats", "−0.500 nats", "+0.500 nats"]
    assert "·la 1.000 + mp 1.000 nats" in strips["details"][1]
    sentences = " ".join(text_of(said).split())
    assert "into 4 and 3 tokens" in sentences
    assert "2 of which are one token in both" in sentences
    assert "read the first 3 tokens only" in sentences
    assert "0.571" in sentences, "four nats over seven characters"


async def test_one_model_a_model_that_cannot_be_loaded_and_no_text() -> None:
    strips, said = await texts.through_both(service(), "A lamp", "tiny", "tiny")
    assert strips is not None
    assert "Both runs are of one model" in text_of(said)

    def refused(call: Any) -> schemas.TextTrace:
        if "/other/" in call.path:
            raise ApiError(schemas.Problem(title="Not there", status=404, detail="Its folder is gone."))
        return sample.trace()

    strips, said = await texts.through_both(service(models=2, texts=refused), "A lamp", "tiny", "other")
    assert strips is not None
    assert [one["title"] for one in strips["strips"]] == ["Loss, Tiny", "Entropy, Tiny"]
    assert "cannot read it: Its folder is gone." in text_of(said)
    strips, said = await texts.through_both(service(texts=None), "A lamp", "tiny", "other")
    assert strips is None
    for text, sentence in ((" ", "Write or pick a text first"), ("x" * 30_000, "at most 20,000")):
        strips, said = await texts.through_both(service(), text, "tiny", "other")
        assert strips is None
        assert sentence in text_of(said)
    assert "no two models" in text_of((await texts.through_both(service(), "A", None, "tiny"))[1])
    assert "nothing at /models" in text_of((await texts.through_both(Service(), "A", "tiny", "tiny"))[1])


async def test_texts_are_asked_of_one_model_after_the_other() -> None:
    found = service(models=2)
    await texts.through_both(found, "A lamp", "other", "tiny")
    assert [path for path in found.asked if path.endswith("/texts")] == ["/models/other/texts", "/models/tiny/texts"]
    sent: list[str] = []
    found.answers["texts"] = lambda call: sent.append(body_of(call).text) or sample.trace()  # type: ignore[func-returns-value]
    await texts.through_both(found, "A lamp", "tiny", "tiny")
    assert sent == ["A lamp"], "one model is asked once"
