"""What a figure of a reproduction is: how it is drawn, with which numbers, and from which jobs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from app.reproduce.evidence import Evidence
from app.reproduce.induction import JobKind

Table = Mapping[str, Sequence[Any]]
"""Columns of equal length by name."""


@dataclass(frozen=True)
class Drawn:
    """A figure and the numbers in it."""

    figure: go.Figure
    table: Table
    height: int = 460
    note: str = ""
    """What the figure leaves out, in a sentence."""


@dataclass(frozen=True)
class Part:
    """One figure of the paper."""

    figure: str
    """Its number; files and claims are named after it."""
    title: str
    also: str
    """Other figures of the paper that it stands for."""
    draw: Callable[[Sequence[Evidence]], Drawn | str]
    """From the models, the first of which is the one that is reproduced; a sentence where it cannot be drawn."""
    jobs: tuple[JobKind, ...] = ()
    """The induction jobs that it, or a claim about it, is made from."""
