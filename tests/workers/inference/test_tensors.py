"""Tensors between guests and graphs."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lockstep.engine.errors import RequestRejected
from lockstep.engine.strict_json import dumps, loads
from lockstep.workers.inference.graph import Port
from lockstep.workers.inference.tensors import (
    DTYPES,
    ELEMENTS_MAX,
    RANK_MAX,
    canonical,
    read_inputs,
    read_tensor,
    write_tensor,
)


def port(dtype: str, *shape: int | str) -> Port:
    return Port("x", dtype, shape)


@given(
    st.sampled_from(sorted(DTYPES)).flatmap(
        lambda name: hnp.arrays(
            DTYPES[name],
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
            elements={"allow_nan": False, "allow_infinity": False} if "float" in name else None,
        )
    ),
    st.sampled_from(["list", "base64"]),
)
def test_a_tensor_comes_back_as_it_was(array: Any, encoding: str) -> None:
    written = loads(dumps(write_tensor(array, encoding, "x")))
    name = written.pop("dtype")
    if array.size == 0 and encoding == "list":
        return  # [] has lost its other dimensions: that is what base64 is for.
    again = read_tensor(written, port(name, *array.shape))
    assert again.dtype == array.dtype and again.shape == array.shape
    assert again.tobytes() == array.tobytes()


def test_every_nan_leaves_with_the_same_bits() -> None:
    odd = np.array([0x7FC00000, 0xFFC00001, 0x7F800001, 0x3F800000], np.uint32).view(np.float32)
    assert [hex(n) for n in canonical(odd).view(np.uint32)] == ["0x7fc00000"] * 3 + ["0x3f800000"]
    written = base64.b64decode(write_tensor(odd, "base64", "x")["base64"])
    assert written == canonical(odd).tobytes()
    with pytest.raises(ValueError, match='x has a NaN or Inf; ask for "encoding": "base64"'):
        write_tensor(odd, "list", "x")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("float32", 3, "inputs.x: 3, expected an object"),
        ("float32", {}, 'expected "data", or "base64" with "shape"'),
        ("float32", {"data": 1, "base64": ""}, 'expected "data", or "base64" with "shape"'),
        ("float32", {"data": 1, "dtype": "int8"}, 'expected "data"'),
        ("float32", {"data": [[1], [2, 3]]}, "ragged"),
        ("float32", {"data": [[1], 2]}, "ragged"),
        ("float32", {"data": [1, [2]]}, r"\[2\] is no float32"),
        ("float32", {"data": ["1"]}, '"1" is no float32'),
        ("float32", {"data": [True]}, "true is no float32"),
        ("float32", {"data": [1e39]}, "too large for float32"),
        ("float16", {"data": [70000]}, "too large for float16"),
        ("float64", {"data": [10**400]}, "is no float64"),
        ("int8", {"data": [128]}, "128 is no int8"),
        ("uint64", {"data": [-1]}, "-1 is no uint64"),
        ("int64", {"data": [1.0]}, "1.0 is no int64"),
        ("bool", {"data": [1]}, "1 is no bool"),
        ("float32", {"data": [1, 2], "shape": [3]}, r"shape \[3\], but the data has \[2\]"),
        ("float32", {"base64": "!!", "shape": [1]}, "expected base64 text"),
        ("float32", {"base64": 7, "shape": [1]}, "expected base64 text"),
        ("float32", {"base64": "AAAA", "shape": [1]}, "3 bytes, shape .* has 4"),
        ("float32", {"base64": "AAAA"}, "shape: null"),
        ("float32", {"base64": "", "shape": [-1]}, "expected at most 8 sizes"),
        ("float32", {"base64": "", "shape": [True]}, "expected at most 8 sizes"),
        ("float32", {"base64": "", "shape": [1] * (RANK_MAX + 1)}, "expected at most 8 sizes"),
        ("float32", {"base64": "", "shape": [2**14, 2**14]}, f"at most {ELEMENTS_MAX}"),
        ("float32", {"base64": b64(np.float32(math.nan).tobytes()), "shape": [1]}, "NaN or Inf"),
        ("bool", {"base64": b64(b"\2"), "shape": [1]}, "neither 0 nor 1"),
    ],
)
def test_a_tensor_that_is_none_is_refused_with_the_place(
    dtype: str, value: Any, message: str
) -> None:
    with pytest.raises(RequestRejected, match=message) as caught:
        read_tensor(value, port(dtype))
    assert str(caught.value).startswith("inputs.x")


def test_deep_nesting_is_refused() -> None:
    value: Any = 1
    for _ in range(RANK_MAX + 1):
        value = [value]
    with pytest.raises(RequestRejected, match="more than 8 dimensions"):
        read_tensor({"data": value}, port("float32"))


def test_inputs_must_be_those_of_the_graph() -> None:
    ports = [Port("a", "float32", ("n", 2)), Port("b", "float32", ("n", 2))]
    row = {"data": [[1, 2]]}
    assert sorted(read_inputs({"a": row, "b": row}, ports)) == ["a", "b"]
    for value, message in (
        (row, '"data" is no input, only: a, b'),
        ([], r"inputs: \[\], expected an object"),
        ({"a": row}, "b: float32.* is missing"),
        ({"a": row, "b": {"data": [1, 2]}}, r"inputs.b: shape \[2\]"),
        ({"a": row, "b": {"data": [[1, 2, 3]]}}, "2 is 2 by the graph"),
        ({"a": row, "b": {"data": [[1, 2], [3, 4]]}}, "n is 1 by a"),
    ):
        with pytest.raises(RequestRejected, match=message):
            read_inputs(value, ports)


def test_an_answer_is_json_that_anybody_reads() -> None:
    written = write_tensor(np.array([[1.5, -2.0]], np.float32), "list", "y")
    assert json.loads(dumps(written)) == {
        "dtype": "float32",
        "shape": [1, 2],
        "data": [[1.5, -2.0]],
    }
