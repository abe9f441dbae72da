"""`calibroscope reproduce` on induction: jobs found or queued and done, figures with their numbers, claims checked."""

import csv
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine, text

from app.cli import reproducing
from app.reproduce import induction, write
from app.reproduce.claim import Claim
from app.reproduce.claims import CLAIMS
from app.reproduce.drawn import Drawn
from app.reproduce.evidence import Evidence, choose, gather
from app.reproduce.induction import (
    RANDOM_NEURONS,
    Chosen,
    Induction,
    JobKind,
    find,
    queue_missing,
    request_for,
)
from app.reproduce.induction_parts import BASELINES, CASE_STUDY, MORE_INDUCTION
from app.reproduce.page import differences, summary
from app.reproduce.parts import PARTS, chosen_parts
from app.reproduce.report import queue_induction, write_report
from app.reproduce.stills import NoStills
from app.reproduce.write import Report
from backend import schemas
from backend.atlas.store import Atlas
from backend.client import ApiError, AsyncClient, calls
from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from precompute.progress import Silent
from precompute.worker import Worker
from tests.app import induction_sample as events
from tests.conftest import TinyAtlas

pytestmark = pytest.mark.anyio
INDUCTION = [*CASE_STUDY, *MORE_INDUCTION]
KINDS: list[JobKind] = ["doubled", "natural", "frequency"]
ENTROPY, FREQUENCY = [2, 5], [7, 8, 9]


@pytest.fixture(autouse=True, scope="module")
def short_repeats() -> Iterator[None]:
    """In the tiny corpus no six tokens repeat as the paper wants it; two do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(induction, "NATURAL_SPAN", 2)
        yield


@pytest.fixture(autouse=True)
def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: object) -> None:
        raise NoStills("No SVGs were drawn: there is nothing to draw them with.")

    monkeypatch.setattr(write, "draw_stills", refuse)


@dataclass(frozen=True)
class Own:
    """A copy of the tiny atlas that a test may write into, and its API."""

    path: Path
    service: FastAPI
    run: int
    slug: str

    @property
    def client(self) -> AsyncClient:
        """To its API; a few neurons are given a class, since chance makes few."""
        client = AsyncClient(service=self.service)
        send = client.send

        async def with_classes(call: Any) -> Any:
            answer = await send(call)
            if call.path.endswith("/columns"):
                answer.neuron_class[:] = ["plain"] * len(answer.neuron_class)
                for name, rows in (("entropy", ENTROPY), ("token_frequency", FREQUENCY)):
                    for row in rows:
                        answer.neuron_class[row] = name
            return answer

        client.send = with_classes  # type: ignore[method-assign]
        return client

    def work(self, jobs: Sequence[schemas.Job]) -> list[str]:
        """Do some jobs; how they ended."""
        with Atlas.open(self.path) as atlas:
            worker = Worker(atlas, self.path.parent, Silent(), "cpu")
            for job in jobs:
                worker.do(atlas.jobs.begin(job.id))
            return [atlas.jobs.get(job.id).status for job in jobs]

    async def chosen(self) -> tuple[schemas.RunSummary, Chosen]:
        client = self.client
        run = await client.send(calls.run(self.run))
        model = (await client.send(calls.models())).models[0]
        return run, await choose(client, model, run)


@contextmanager
def copied(tiny: TinyAtlas, folder: Path) -> Iterator[Own]:
    """A copy of the tiny atlas, and its API while it lasts."""
    path = folder / "own.db"
    path.write_bytes(tiny.path.read_bytes())
    engine = LiveEngine(folder, device="cpu")
    yield Own(path, create_service(Settings(atlas=str(path)), engine=engine), tiny.run, tiny.slug)
    engine.close()


@pytest.fixture
def own(tiny_atlas: TinyAtlas, tmp_path: Path) -> Iterator[Own]:
    with copied(tiny_atlas, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def worked(tiny_atlas: TinyAtlas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    """With the three jobs done by the real worker."""
    with copied(tiny_atlas, tmp_path_factory.mktemp("worked")) as own:

        async def queue() -> list[schemas.Job]:
            run, who = await own.chosen()
            return await queue_missing(own.client, KINDS, run, who, 4)

        queued = anyio.run(queue)
        assert [job.request["source"] for job in queued] == ["synthetic", "natural", "synthetic"]
        assert own.work(queued) == ["finished"] * 3
        yield own


async def evidence(own: Own) -> Evidence:
    client = own.client
    run = await client.send(calls.run(own.run))
    found = await gather(client, (await client.send(calls.models())).models[0], run)
    jobs = {kind: await find(client, kind, run, found.chosen) for kind in KINDS}
    assert not [one for one in jobs.values() if isinstance(one, str)], jobs
    return replace(found, induction=jobs)  # type: ignore[arg-type]


# ---- jobs


async def test_what_is_missing_is_queued_once_and_what_is_there_is_not(own: Own) -> None:
    run, who = await own.chosen()
    queued = await queue_missing(own.client, KINDS, run, who, 2)
    again = await queue_missing(own.client, KINDS, run, who, 2)
    assert [job.id for job in queued] == [job.id for job in again]
    doubled, natural, frequency = (schemas.InductionJobRequest.model_validate(job.request) for job in queued)
    assert (doubled.source, doubled.span) == ("synthetic", run.seq_len - 1)
    assert doubled.neurons == natural.neurons == [*who.entropy, *induction.random_neurons(who)]
    assert doubled.knocked_out_at == "measured", "as the paper's authors do"
    assert (natural.source, natural.span) == ("natural", induction.NATURAL_SPAN)
    assert frequency.neurons[: len(FREQUENCY)] == who.frequency
    assert len(frequency.neurons) == len(set(frequency.neurons)) == len(FREQUENCY) + RANDOM_NEURONS
    assert not set(frequency.neurons) & set(who.entropy)
    assert frequency.parts == ["curves", "clip", "change"]
    assert "no finished induction job" in str(await find(own.client, "doubled", run, who)), "a queued one is none"


async def test_the_newest_finished_job_that_has_the_strongest_neuron_is_taken(worked: Own) -> None:
    run, who = await worked.chosen()
    found = await find(worked.client, "doubled", run, who)
    assert isinstance(found, Induction)
    assert found.start.neurons[: len(who.entropy)] == who.entropy
    assert all(one.knocked_out_at == "measured" for one in found.knockouts)
    assert found.heads is not None
    assert found.knockouts
    assert found.attributions
    assert set(found.clips) == {*who.entropy, *induction.random_neurons(who)}
    other = replace(who, entropy=[who.columns.neuron[11]])
    assert isinstance(await find(worked.client, "doubled", run, other), str), "it has not measured that neuron"
    assert isinstance(await find(worked.client, "doubled", run.model_copy(update={"id": 77}), who), str)
    nobody = replace(who, frequency=[])
    assert await find(worked.client, "frequency", run, nobody) == "The run has no token-frequency neurons."
    assert request_for("frequency", run, nobody, 2) is None
    assert await queue_missing(worked.client, KINDS, run, nobody, 9) == [], "there already"


async def test_a_job_on_hand_picked_heads_or_of_too_few_parts_does_not_serve(own: Own) -> None:
    run, who = await own.chosen()
    whole = request_for("doubled", run, who, 2)
    assert whole is not None
    picked = whole.model_copy(update={"heads": ["L0H0"]})
    partial = whole.model_copy(update={"parts": ["curves"]})
    requests = [schemas.JobRequest(model=own.slug, induction=request) for request in (picked, partial)]
    queued = [await own.client.send(calls.add_job(request)) for request in requests]
    assert own.work(queued) == ["finished", "finished"]
    assert isinstance(await find(own.client, "doubled", run, who), str)


async def test_a_job_from_before_b_and_x_serves_but_is_measured_again_where_that_is_wanted(own: Own) -> None:
    run, who = await own.chosen()
    assert own.work(await queue_missing(own.client, ["natural"], run, who, 4)) == ["finished"]
    database = create_engine(f"sqlite:///{own.path}")
    with database.begin() as connection:
        rows = connection.execute(text("SELECT job, place, payload FROM job_events")).all()
        for job, place, payload in rows:
            stored = {name: value for name, value in json.loads(payload).items() if name != "after"}
            if stored["kind"] == "start":
                stored["told"] = stored.pop("summary")
            connection.execute(
                text("UPDATE job_events SET payload = :payload WHERE job = :job AND place = :place"),
                {"payload": json.dumps(stored), "job": job, "place": place},
            )
    database.dispose()
    old = await find(own.client, "natural", run, who)
    assert isinstance(old, Induction)
    assert old.curves is not None
    assert old.curves.after is None
    assert all(clip.after is None for clip in old.clips.values())
    assert "in a row come again of themselves" in old.start.summary
    again = await queue_missing(own.client, ["natural"], run, who, 1)
    assert [job.request["sequences"] for job in again] == [old.start.sequences], "never on fewer"
    assert own.work(again) == ["finished"]
    new = await find(own.client, "natural", run, who)
    assert isinstance(new, Induction)
    assert new.job == again[0].id
    assert not new.outdated
    assert new.curves is not None
    assert new.curves.model_copy(update={"after": None}) == old.curves
    assert await queue_missing(own.client, ["natural"], run, who, 1) == []


async def test_why_the_last_one_failed_is_said(own: Own) -> None:
    run, who = await own.chosen()
    queued = await queue_missing(own.client, ["doubled"], run, who, 2)
    with Atlas.open(own.path) as atlas:
        atlas.jobs.begin(queued[0].id)
        atlas.jobs.end(queued[0].id, "failed", "The moon was full.")
    said = await find(own.client, "doubled", run, who)
    assert "The last one failed: The moon was full." in str(said)
    assert "unless --induction is 0" in str(said)


async def test_only_the_figures_asked_for_need_jobs(own: Own) -> None:
    assert await queue_induction(own.client, own.run, chosen_parts("1,6"), 2) == []
    queued = await queue_induction(own.client, own.run, chosen_parts("9b"), 2)
    assert [job.request["source"] for job in queued] == ["natural"]
    with pytest.raises(ApiError, match="no run 77"):
        await queue_induction(own.client, 77, chosen_parts("9b"), 2)


async def test_a_stream_is_read_to_its_end_and_a_refusal_is_told(worked: Own) -> None:
    client = AsyncClient(service=worked.service)
    newest = (await client.send(calls.jobs())).jobs[0].id
    kinds = [event.root.kind async for event in client.stream(calls.follow_job(newest))]
    assert (kinds[0], kinds[-1]) == ("start", "end")
    with pytest.raises(ApiError, match="no job 9999"):
        _ = [event async for event in client.stream(calls.follow_job(9999))]
    nowhere = AsyncClient("http://127.0.0.1:9")
    with pytest.raises(ApiError, match="got no answer"):
        _ = [event async for event in nowhere.stream(calls.follow_job(1))]


# ---- figures and their numbers


async def test_every_induction_figure_is_drawn_and_every_claim_checked(worked: Own) -> None:
    found = await evidence(worked)
    for part in INDUCTION:
        drawn = part.draw([found])
        assert isinstance(drawn, Drawn), drawn
        assert len({len(column) for column in drawn.table.values()}) == 1
        assert drawn.figure.data
    numbers = {part.figure for part in INDUCTION}
    for claim in (claim for claim in CLAIMS if claim.figure in numbers):
        finding = claim.check(found)
        assert finding.measured.endswith("."), claim.says
        assert "nan" not in finding.measured
        if finding.holds is not None:
            assert "Holds" in finding.measured, "the threshold is stated"


async def test_without_jobs_nothing_is_drawn_and_nothing_holds(own: Own) -> None:
    client = own.client
    run = await client.send(calls.run(own.run))
    found = await gather(client, (await client.send(calls.models())).models[0], run)
    missing = replace(found, no_induction=dict.fromkeys(KINDS, "There is none."))
    for part in INDUCTION:
        assert part.draw([missing]) == "There is none."
        assert part.jobs
    for claim in (claim for claim in CLAIMS if claim.figure in {part.figure for part in INDUCTION}):
        assert claim.check(missing).holds is None
        assert claim.check(found).holds is None


def crafted(found: Evidence, **changes: Any) -> Evidence:
    """Of the sample's events, whose numbers are known: the entropy neurons are 29.7 and 29.3."""
    neurons = [f"29.{row}" for row in range(len(found.columns.neuron))]
    columns = found.columns.model_copy(update={"neuron": neurons})
    job = Induction(
        1, events.start(), events.curves(), {name: clipped(name, -1) for name in events.NEURONS},
        events.change(len(neurons)), events.heads(), events.knockouts(), [attributed({"L3H1": -0.4, "MLP 4": 1.2})],
    )  # fmt: skip
    job = replace(job, **changes)
    jobs, named = dict.fromkeys(KINDS, job), events.NEURONS
    return replace(found, columns=columns, induction=jobs, entropy=named, frequency=named)


def clipped(neuron: str, sign: int) -> schemas.InductionClip:
    """Clipping halves the entropy (−) or adds a third (+), with small errors."""
    size = events.SPAN
    after = [0.5 / (i + 1) for i in range(size)] if sign < 0 else [2.0] * size
    change = [-value if sign < 0 else 0.5 for value in after]
    curves = {"entropy": events.curve(after, 0.01), "delta_entropy": events.curve(change, 0.01)}
    totals = events.totals(-0.3 if sign < 0 else 0.2)
    return events.clip(neuron).model_copy(update={**curves, "totals": totals})


def attributed(written: dict[str, float]) -> schemas.InductionAttribution:
    """What some components write, and the others do not; nothing with another first half."""
    plain = events.attribution()
    values = [written.get(name, 0.0) for name in plain.components]
    both = {"induction": values, "corrupted": [0.0] * len(values)}
    return plain.model_copy(update={key: dict.fromkeys(events.NEURONS, one) for key, one in both.items()})


def claim_of(figure: str, words: str) -> Claim:
    """The one claim about a figure that has these words."""
    (found,) = [claim for claim in CLAIMS if claim.figure == figure and words in claim.says]
    return found


async def test_loss_and_heads_are_looked_at(worked: Own) -> None:
    base = await evidence(worked)
    flat = events.curve([2.0] * (2 * events.SPAN))
    no_change = events.curves().model_copy(update={"loss": flat, "entropy": flat})
    dull = crafted(base, curves=no_change, heads=events.heads(prefix_matching=[[0.01] * 4] * 6))
    for claim in (claim_of("5a", "loss and entropy fall"), claim_of("5c", "There are induction heads")):
        assert claim.check(crafted(base)).holds is True, claim.check(crafted(base)).measured
        assert claim.check(dull).holds is False
    assert "0.50 → 2.00" in claim_of("5a", "activations change").check(crafted(base)).measured
    gpt2 = claim_of("5c", "The three best are")
    assert gpt2.check(crafted(base)).holds is None
    small = replace(crafted(base), model=base.model.model_copy(update={"name": "gpt2"}))
    assert gpt2.check(small).holds is False
    chosen = events.heads(chosen=["L5H5", "L5H1", "L6H9"])
    assert gpt2.check(replace(crafted(base, heads=chosen), model=small.model)).holds is True


@pytest.mark.parametrize(
    ("figure", "words", "measured"),
    [
        ("5b", "an entropy neuron lowers the entropy", "-50.0 ± 0.0 %"),
        ("5b", "By up to 70", "by up to 50 %"),
        ("5c", "looking at the first token only, the strongest", "first occurrence, 2.00 on the second, 1.25"),
        ("5c", "With all three", "50% is left with L3H1 at the first token and 33% with L3H1, L4H2"),
        ("5c", "Baseline heads have little", "93% to 93%"),
        ("14", "What induction heads write directly is not", "below half in most"),
        ("14", "often goes against", "in 2 of 2"),
        ("14", "It is MLPs", "29.7: MLP 4, 29.3: MLP 4"),
    ],
)  # fmt: skip
async def test_a_finding_tells_the_events_numbers(worked: Own, figure: str, words: str, measured: str) -> None:
    finding = claim_of(figure, words).check(crafted(await evidence(worked)))
    assert finding.holds is True, finding.measured
    assert measured in finding.measured


async def test_the_reverse_of_a_claim_does_not_hold(worked: Own) -> None:
    base = await evidence(worked)
    before, lower = events.curves().activations, events.knockout("L3H1").activations
    knockouts = [
        events.knockout("L3H1").model_copy(update={"activations": before}),
        events.knockout("L3H1", how="mean_output").model_copy(update={"activations": before}),
        events.knockout("L3H0", role="baseline").model_copy(update={"activations": lower}),
    ]
    clips = {name: clipped(name, 1) for name in events.NEURONS}
    reverse = crafted(base, clips=clips, knockouts=knockouts, attributions=[attributed({"L3H1": 9.0, "MLP 4": 1.0})])
    wrong = [
        ("5b", "an entropy neuron lowers"), ("5b", "By up to 70"), ("5c", "strongest entropy neuron's activation"),
        ("5c", "Baseline heads"), ("12", "the best induction head"), ("13", "They stay closer"),
        ("14", "is not what drives"), ("14", "often goes against"), ("14", "It is MLPs"),
    ]  # fmt: skip
    for figure, words in wrong:
        claim = claim_of(figure, words)
        assert claim.check(reverse).holds is False, (claim.says, claim.check(reverse).measured)
    assert claim_of("5b", "raises the entropy slightly").check(reverse).holds is True


async def test_of_a_neuron_that_does_not_change_no_share_is_told(worked: Own) -> None:
    same = dict.fromkeys(events.NEURONS, events.curve([0.5] * (2 * events.SPAN)))
    still = {"activations": same, "second": events.over(0.3, 0.3, 0.5), "change": events.over(-3.6, -3.6, 0.0)}
    dull = crafted(await evidence(worked), curves=events.curves().model_copy(update=still))
    assert claim_of("5a", "activations change").check(dull).holds is False
    told = [claim_of("5c", words) for words in ("With all three", "Baseline heads")]
    for claim in [*told, *(claim for claim in CLAIMS if claim.figure in ("12", "13"))]:
        assert claim.check(dull).holds is None
        assert "Too little changes" in claim.check(dull).measured


async def test_numbers_beside_a_figure_are_those_drawn(worked: Own) -> None:
    found = await evidence(worked)
    doubled = found.induction["doubled"]
    assert doubled.curves is not None
    drawn = {part.figure: part.draw([found]) for part in INDUCTION}
    curves, clips, out, changes, direct = (drawn[name] for name in ("5a", "10b", "12", "11", "14"))
    assert all(isinstance(one, Drawn) for one in drawn.values())
    assert curves.table["loss"] == doubled.curves.loss.mean  # type: ignore[union-attr]
    assert list(curves.table["occurrence"]).count(2) == doubled.start.span  # type: ignore[union-attr]
    frequency = found.induction["frequency"]
    assert set(clips.table["neuron"]) == set(frequency.start.neurons), "the random ones too"  # type: ignore[union-attr]
    lines = [trace.name for trace in clips.figure.data if trace.name]  # type: ignore[union-attr]
    assert lines == [*found.frequency, f"{RANDOM_NEURONS} random neurons (mean)"]
    unchanged = [row for row in zip(*out.table.values(), strict=True) if row[:2] == (found.entropy[0], "")]  # type: ignore[union-attr]
    assert [row[6] for row in unchanged] == doubled.curves.activations[found.entropy[0]].mean
    assert doubled.change is not None
    assert changes.table["change_doubled"] == doubled.change.change  # type: ignore[union-attr]
    assert len(direct.table["neuron"]) == sum(len(one.components) for one in doubled.attributions) * 2  # type: ignore[union-attr]
    one_neuron = drawn["5c"]
    assert set(one_neuron.table["neuron"]) == {found.entropy[0]}  # type: ignore[union-attr]


async def test_b_and_x_are_in_the_numbers_of_figure_9_and_in_no_claim(worked: Own) -> None:
    found = await evidence(worked)
    natural, doubled = found.induction["natural"], found.induction["doubled"]
    assert natural.curves is not None
    after, span = natural.curves.after, natural.start.span
    assert after is not None
    drawn = {part.figure: part.draw([found]) for part in INDUCTION if part.figure in ("5a", "9a", "9b")}
    tables = {name: one.table for name, one in drawn.items() if isinstance(one, Drawn)}
    assert list(tables["9a"]["place"]) == [*(f"A{n}" for n in range(span)), "B", *(f"A{n}" for n in range(span)), "X"]
    for name, curve, ends in (
        ("loss", natural.curves.loss, after.loss),
        *((neuron, natural.curves.activations[neuron], after.activations[neuron]) for neuron in found.entropy),
    ):
        values = list(tables["9a"][name])
        assert [values[span], values[-1]] == ends.mean
        assert values[:span] + values[span + 1 : -1] == curve.mean
    assert list(tables["9a"]["occurrence"]) == [1] * (span + 1) + [2] * (span + 1)
    first = next(iter(natural.clips.values()))
    assert first.after is not None
    assert list(tables["9b"]["place"])[: span + 1] == [*(f"A{n}" for n in range(span)), "X"]
    assert tables["9b"]["delta_entropy"][span] == first.after.delta_entropy.mean[0]
    assert "place" not in tables["5a"]
    assert len(tables["5a"]["loss"]) == 2 * doubled.start.span
    bare = replace(
        natural, curves=natural.curves.model_copy(update={"after": None}),
        clips={name: clip.model_copy(update={"after": None}) for name, clip in natural.clips.items()},
    )  # fmt: skip
    before = replace(found, induction={**found.induction, "natural": bare})
    for claim in (claim for claim in CLAIMS if claim.figure in ("9a", "9b", "9c", "11")):
        assert claim.check(before) == claim.check(found)
    old = next(part for part in INDUCTION if part.figure == "9a").draw([before])
    assert isinstance(old, Drawn)
    assert "place" not in old.table
    assert len(old.table["loss"]) == 2 * span


async def test_figure_11_shows_the_kind_of_text_there_is(worked: Own) -> None:
    found = await evidence(worked)
    part = next(part for part in INDUCTION if part.figure == "11")
    both, one = part.draw([found]), part.draw([replace(found, induction={"natural": found.induction["natural"]})])
    assert isinstance(both, Drawn)
    assert isinstance(one, Drawn)
    assert "change_doubled" in both.table
    assert "change_doubled" not in one.table


async def test_grey_lines_share_a_name(worked: Own) -> None:
    drawn = next(part for part in INDUCTION if part.figure == "12").draw([crafted(await evidence(worked))])
    assert isinstance(drawn, Drawn)
    named = [trace for trace in drawn.figure.data if trace.showlegend]
    assert [trace.name for trace in named].count(BASELINES) == 1
    assert "all heads in place" in {trace.name for trace in named}
    assert any("L3H0 out" in str(trace.hovertemplate) for trace in drawn.figure.data)


# ---- the report


async def test_the_report_says_what_was_measured_and_on_how_little(worked: Own, tmp_path: Path) -> None:
    page = await write_report(
        worked.client, [worked.run], chosen_parts("5,9,10,11,12,13,14"), tmp_path / "report", print
    )
    html = page.read_text()
    for part in INDUCTION:
        assert f"Figure {part.figure}" in html
        with (tmp_path / f"report/figures/figure-{part.figure}.csv").open() as file:
            assert len(list(csv.DictReader(file))) > 2
    assert "Not drawn" not in html
    found = await evidence(worked)
    report = Report([found], [], "")
    assert any(found.induction["natural"].start.summary in line for line in summary(report))
    assert any("the sequences are fewer: 4 for text written twice" in line for line in differences(report))


def _numbers_of(asked: str) -> list[str]:
    return [part.figure for part in chosen_parts(asked)]


async def test_a_number_stands_for_all_its_panels() -> None:
    assert _numbers_of("9") == ["9a", "9b", "9c"]
    assert _numbers_of("10,5b") == ["10a", "10b", "10c", "5b"]
    assert _numbers_of("1") == ["1"]
    figures_in_order = [part.figure for part in PARTS]
    assert figures_in_order == sorted(figures_in_order, key=lambda name: (int(name.rstrip("abcdef")), name))


def test_the_command_does_what_is_missing_and_draws_it(
    own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Atlas.open(own.path, read_only=True) as atlas:
        # Naming it confirms that it may be loaded; the atlas's name would not.
        source = atlas.models.get(own.slug).source
    asked: dict[str, Any] = {"model": [source], "figures": "9", "atlas": str(own.path), "device": "cpu"}
    reproducing.reproduce(**asked, out=tmp_path / "none", induction=0)
    assert not list((tmp_path / "none/figures").glob("*.csv"))
    assert "unless --induction is 0" in (tmp_path / "none/report.md").read_text()
    reproducing.reproduce(**asked, out=tmp_path / "some", induction=2)
    assert {path.stem for path in (tmp_path / "some/figures").glob("*.csv")} == {"figure-9a", "figure-9b", "figure-9c"}
    capsys.readouterr()
    with Atlas.open(own.path) as atlas:
        before = [(job.id, job.status) for job in atlas.jobs.newest(50)]
    assert {status for _, status in before} == {"finished"}
    reproducing.reproduce(**asked, out=tmp_path / "again", induction=2)
    with Atlas.open(own.path) as atlas:
        assert [(job.id, job.status) for job in atlas.jobs.newest(50)] == before, "nothing is measured twice"


async def test_a_job_that_another_worker_is_at_is_waited_for(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    run, who = await own.chosen()
    queued = await queue_missing(own.client, ["natural"], run, who, 2)
    with Atlas.open(own.path) as atlas:
        atlas.jobs.begin(queued[0].id)
    running = await queue_missing(own.client, ["natural"], run, who, 2)
    assert running[0].worker_is_alive

    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        with Atlas.open(own.path) as atlas:
            atlas.jobs.end(queued[0].id, "finished")

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(Worker, "do", lambda *_: pytest.fail("it is not done twice"))
    reproducing._carry_out(running, Settings(atlas=str(own.path)))
    assert slept
