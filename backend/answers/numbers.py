"""Numbers as the wire has them: what is not finite is null."""

import math

import numpy as np
from numpy.typing import NDArray


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def finite_list(column: NDArray[np.floating]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in column.tolist()]
