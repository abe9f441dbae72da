"""The neurons of a run, and all that is known of one."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import StringConstraints

from backend import schemas
from backend.answers import contexts, neighbours
from backend.answers import neurons as answers
from backend.answers.export import MEDIA_TYPES, exported
from backend.atlas.query import NeuronQuery
from backend.glossary import METRIC_COLUMNS
from backend.routes.deps import AtlasDep, EngineDep, NeuronDep, Reading, RunDep, TurnDep, about_run

router = APIRouter(prefix="/runs/{run}", tags=["neurons"])

Word = Annotated[str, StringConstraints(max_length=100)]
MAX_NAMES = 2 * len(METRIC_COLUMNS)
"""Names of columns in a request: all of them, and some twice."""
Names = Annotated[list[Word] | None, Query(max_length=MAX_NAMES)]


@router.get("/neurons", dependencies=[Reading])
def list_neurons(
    run: RunDep,
    atlas: AtlasDep,
    sort: Annotated[str, Query(max_length=60, description="A metric, `-` first for descending.")] = "-total_effect",
    where: Annotated[list[Word] | None, Query(max_length=20, examples=[["null_fraction>=0.5"]])] = None,
    neuron_class: Annotated[str | None, Query(alias="class", max_length=40)] = None,
    paper_criterion: Annotated[bool | None, Query(description="Only neurons with this mark.")] = None,
    columns: Names = None,
    limit: Annotated[int, Query(ge=1, le=schemas.MAX_PAGE)] = 100,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> schemas.NeuronPage:
    """A page of neurons; filters all hold; unmeasured values sort last."""
    query = NeuronQuery.parse(
        columns=columns,
        sort=sort,
        where=where or [],
        neuron_class=neuron_class,
        paper_criterion=paper_criterion,
        limit=limit,
        cursor=cursor,
    )
    return answers.neuron_page(atlas, run, query)


@router.get("/columns", dependencies=[Reading])
def read_columns(
    run: RunDep, atlas: AtlasDep, name: Annotated[list[Word], Query(min_length=1, max_length=MAX_NAMES)]
) -> schemas.NeuronColumns:
    """The named metrics of all neurons, by column: what a scatter needs."""
    return answers.columns(atlas, run, name)


@router.get("/neurons/{neuron}", dependencies=[Reading])
def read_neuron(run: RunDep, atlas: AtlasDep, neuron: NeuronDep) -> schemas.NeuronDetail:
    """All metrics of a neuron, their percentiles within the run, and why it has its class."""
    return answers.neuron(atlas, run, neuron)


@router.get("/neurons/{neuron}/histogram", dependencies=[Reading])
def read_histogram(run: RunDep, atlas: AtlasDep, neuron: NeuronDep) -> schemas.Histogram:
    """How often the neuron had which activation in the sample."""
    return answers.histogram(atlas, run, neuron)


@router.get("/neurons/{neuron}/contexts", dependencies=[Reading])
def read_contexts(run: RunDep, atlas: AtlasDep, neuron: NeuronDep) -> schemas.ContextList:
    """Contexts of the sample that show the neuron: the loudest, the typical, the quietest."""
    return contexts.contexts(atlas, run, neuron)


@router.post("/neurons/{neuron}/contexts/{context}/ablate")
def ablate_context(
    turn: TurnDep,
    run: RunDep,
    atlas: AtlasDep,
    engine: EngineDep,
    neuron: NeuronDep,
    context: Annotated[schemas.Id, Path()],
    body: schemas.ContextAblateRequest,
) -> schemas.ContextAblation:
    """One of the run's contexts with and without the neuron, on its own tokens (Figure 4b)."""
    return contexts.ablated_context(atlas, engine, turn, run, neuron, context, body.kind)


@router.get("/neurons/{neuron}/similar", dependencies=[Reading])
def read_similar(run: RunDep, atlas: AtlasDep, neuron: NeuronDep) -> schemas.SimilarNeurons:
    """Neurons of the same layer like this one: by what they write (w_out), and by when they fire."""
    return neighbours.similar(atlas, run, neuron)


@router.get("/neurons/{neuron}/effects", dependencies=[Reading])
def read_effects(run: RunDep, atlas: AtlasDep, neuron: NeuronDep) -> schemas.TokenEffects:
    """Per-token effects of mean-ablating the neuron, at the run's sampled positions."""
    return answers.effects(atlas, run, neuron)


@router.get("/neurons/{neuron}/logits", dependencies=[Reading])
def read_logits(run: RunDep, atlas: AtlasDep, neuron: NeuronDep) -> schemas.NeuronLogits:
    """The tokens whose logits the neuron's direct path raises and lowers most."""
    return answers.logits(atlas, run, neuron)


@router.get("/spectrum", dependencies=[Reading])
def read_spectrum(
    run: RunDep, atlas: AtlasDep, neuron: Annotated[str | None, Query(max_length=40)] = None
) -> schemas.Spectrum:
    """Singular values of the unembedding; with `neuron`, also its cosines with the singular directions."""
    return answers.spectrum(atlas, run, neuron)


@router.get(
    "/export.{format}",
    dependencies=[Reading],
    response_class=Response,
    responses={200: {"content": {media: {} for media in MEDIA_TYPES.values()}, "description": "The file"}},
)
def export(run: RunDep, atlas: AtlasDep, format: Literal["csv", "parquet", "json"]) -> Response:
    """One row a neuron, with every metric, as a file. What was measured is in it, but for a CSV, whose `Link` header
    leads to it."""
    headers = {"Content-Disposition": f'attachment; filename="run-{run.id}.{format}"'} | about_run(run.id)
    return Response(exported(atlas, run, format), media_type=MEDIA_TYPES[format], headers=headers)
