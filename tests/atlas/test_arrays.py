"""Arrays survive being stored; anything else is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backend.atlas.arrays import MalformedArray, pack, pack_named, unpack, unpack_named

DTYPES = st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_])
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
)


@given(ARRAYS)
def test_an_array_comes_back_as_it_was(array: np.ndarray) -> None:
    back = unpack(pack(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


@given(st.dictionaries(st.text(max_size=8), ARRAYS, max_size=3))
def test_named_arrays_come_back(arrays: dict[str, np.ndarray]) -> None:
    back = unpack_named(pack_named(arrays))
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)


@given(st.binary(max_size=64))
def test_other_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(MalformedArray, match="damaged"):
        unpack(blob)


def test_a_cut_blob_is_refused() -> None:
    blob = pack(np.arange(10.0))
    for end in range(len(blob)):
        with pytest.raises(MalformedArray):
            unpack(blob[:end])
    with pytest.raises(MalformedArray):
        unpack_named(pack_named({"a": np.arange(3)})[:-4])


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([{}], dtype=object), np.array([1j])])
def test_only_plain_numbers_are_stored(array: np.ndarray) -> None:
    with pytest.raises(MalformedArray, match="cannot be stored"):
        pack(array)
