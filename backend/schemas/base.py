"""What all messages share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_NEURON = r"[0-9]{1,4}\.(([0-9]{1,5}|shared)\.)?[0-9]{1,7}"
_LONGEST_NAME = 19
NeuronName = Annotated[
    str,
    StringConstraints(pattern=rf"^{_NEURON}$", max_length=_LONGEST_NAME),
    Field(
        description="layer.index, of a mixture of experts layer.expert.index (layer.shared.index in a shared expert), "
        "all from 0",
        examples=["29.830", "15.3.240"],
    ),
]
UnitName = Annotated[
    str,
    StringConstraints(pattern=rf"^({_NEURON}|[Ll][0-9]{{1,4}}[Hh][0-9]{{1,4}})$", max_length=_LONGEST_NAME),
    Field(
        description="A neuron (layer.index, of a mixture of experts layer.expert.index) or an attention head (L5H1), "
        "all from 0",
        examples=["29.830", "L5H1"],
    ),
]
MAX_ID = 2**31 - 1
"""What the database's integers hold: https://www.postgresql.org/docs/current/datatype-numeric.html."""
Id = Annotated[int, Field(ge=1, le=MAX_ID, examples=[1])]
"""Of a run, a job or a context."""
Seed = Annotated[int, Field(ge=0, le=MAX_ID)]
Number = Annotated[float | None, Field(allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class Wire(BaseModel):
    """Base of all messages: unknown fields are refused, so that a typing error is not silently ignored."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


class ExpertLayout(Wire):
    """How the neurons of a mixture of experts follow each other in a layer: expert by expert, a shared one last."""

    count: int
    """Experts that the router chooses from."""
    width: int
    """Neurons of each of them."""
    shared: int
    """Neurons of the expert that every token passes; 0 where there is none."""


class Problem(BaseModel):
    """An error, as RFC 9457 has it (`application/problem+json`)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    """What is wrong, where, and what to do."""
    field: str | None = None
    """The field of the request at fault, or null."""


class BusyProblem(Problem):
    """A request that was turned away because others wait already."""

    place: int
    """Which place in the line it would have had, from 1."""
    limit: int
    """How many places there are room for now."""


class Health(Wire):
    status: Literal["ok"]
    version: str
    models_loaded: list[str]
    queue: int
    """Requests waiting for the model."""
    notice: str | None = None
    """What a person should know that no run in the atlas can tell: an analysis that ended before its run began."""


class MetricDefinition(Wire):
    name: str
    label: str
    unit: str
    sentence: str
    equation: str
    """Where the paper has it."""
    formula: str


class Glossary(Wire):
    metrics: list[MetricDefinition]
    terms: dict[str, str]
