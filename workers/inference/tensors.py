"""Tensors between guests and graphs: JSON to numpy and back, typed and sized by the graph's ports.

A tensor is ``{"data": nested lists}``, whose shape is that of the lists, or ``{"base64": text,
"shape": [...]}``, the bytes little-endian in C order. Its type is the port's. Answers carry
``shape`` and ``dtype`` besides. Every NaN of an answer has one bit pattern (rule 14's neighbour in
docs/time.md, "Bits"): which one a kernel leaves depends on the machine.
"""

import base64
import binascii
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lockstep.engine.errors import RequestRejected
from lockstep.workers.inference.fields import shown, wrong
from lockstep.workers.inference.graph import Port

ELEMENTS_MAX = 1 << 26  # Of one tensor.
RANK_MAX = 8
FLOAT_MAX = sys.float_info.max  # Python compares it exactly with whole numbers of any size.
ENCODINGS = ("list", "base64")
# What a guest can spell; the others of ONNX are told as not supported when a model is loaded.
DTYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "int16": np.dtype("<i2"),
    "uint16": np.dtype("<u2"),
    "int32": np.dtype("<i4"),
    "uint32": np.dtype("<u4"),
    "int64": np.dtype("<i8"),
    "uint64": np.dtype("<u8"),
    "bool": np.dtype("?"),
}
_KEYS = ("data", "base64", "shape")

Array = np.ndarray[Any, Any]


def read_inputs(value: Any, ports: Sequence[Port]) -> dict[str, Array]:
    """The inputs of a request, one for each port.

    Args:
        value: ``{port name: tensor}``.
        ports: Of the graph.

    Raises:
        RequestRejected: one is missing or unknown, or is not of its port's type or shape; a
            dimension that the graph names must be the same wherever it is named.
    """
    names = [port.name for port in ports]
    if not isinstance(value, dict):
        raise wrong("inputs: ", value, ", expected an object of tensors by name")
    for name in value:
        if name not in names:
            raise wrong("inputs: ", name, f" is no input, only: {', '.join(names)}")
    free: dict[str, tuple[int, str]] = {}  # Named dimension -> its size, and who said so.
    found = {}
    for port in ports:
        if port.name not in value:
            raise RequestRejected(f"inputs: {port} is missing")
        array = read_tensor(value[port.name], port)
        _fit(array, port, free)
        found[port.name] = array
    return found


def read_tensor(value: Any, port: Port) -> Array:
    """One tensor of the port's type; its shape is not compared with the port's.

    Raises:
        RequestRejected: malformed, ragged, too large, or a value that the type does not have.
    """
    where = f"inputs.{port.name}"
    if not isinstance(value, dict):
        raise wrong(f"{where}: ", value, ", expected an object")
    unknown = [key for key in value if key not in _KEYS]
    if unknown or ("data" in value) == ("base64" in value):
        raise RequestRejected(f'{where}: expected "data", or "base64" with "shape"')
    dtype = DTYPES[port.dtype]
    if "base64" in value:
        return _from_bytes(value, dtype, where)
    shape = _shape_of(value["data"], where)
    if "shape" in value and value["shape"] != list(shape):
        raise RequestRejected(
            f"{where}: shape {shown(value['shape'])}, but the data has {list(shape)}",
            f"{where}: shape {value['shape']!r:.80}, but the data has {shape}",
        )
    flat: list[Any] = []
    _flatten(value["data"], shape, flat, where)
    for item in flat:
        _check(item, dtype, where)
    with np.errstate(over="ignore"):  # Told by the check below.
        array: Array = np.array(flat, dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestRejected(f"{where}: a value is too large for {port.dtype}")
    return array


def write_outputs(outputs: Mapping[str, Array], encoding: str) -> dict[str, Any]:
    """Outputs by name, JSON-able.

    Args:
        outputs: Arrays of the types in `DTYPES`.
        encoding: One of `ENCODINGS`.

    Raises:
        ValueError: a list cannot hold a NaN or an infinity; the output is named.
    """
    return {name: write_tensor(array, encoding, name) for name, array in outputs.items()}


def write_tensor(array: Array, encoding: str, name: str) -> dict[str, Any]:
    """One tensor, JSON-able; errors as `write_outputs`."""
    dtype = DTYPES[array.dtype.name]
    head: dict[str, Any] = {"dtype": dtype.name, "shape": list(array.shape)}
    if encoding == "base64":
        data = canonical(array).astype(dtype, copy=False)
        return head | {"base64": base64.b64encode(data.tobytes()).decode()}
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f'{name} has a NaN or Inf; ask for "encoding": "base64"')
    return head | {"data": array.tolist()}


def canonical(array: Array) -> Array:
    """The array with every NaN as the quiet one without sign or payload."""
    array = np.ascontiguousarray(array)
    if array.dtype.kind == "f":
        odd = np.isnan(array)
        if odd.any():
            array = np.where(odd, array.dtype.type(math.nan), array)
    return array


def _fit(array: Array, port: Port, free: dict[str, tuple[int, str]]) -> None:
    """Compare a tensor's shape with its port's; what names stand for is kept in ``free``."""
    if len(array.shape) != len(port.shape):
        raise RequestRejected(f"inputs.{port.name}: shape {list(array.shape)}, expected {port}")
    for have, want in zip(array.shape, port.shape, strict=True):
        size, by = want, "the graph"
        if isinstance(want, str):
            if want == "?":
                continue
            size, by = free.setdefault(want, (have, port.name))
        if have != size:
            raise RequestRejected(
                f"inputs.{port.name}: shape {list(array.shape)}, expected {port}, and "
                f"{want} is {size} by {by}"
            )


def _from_bytes(value: dict[str, Any], dtype: np.dtype[Any], where: str) -> Array:
    shape, text = value.get("shape"), value["base64"]
    if (
        not isinstance(shape, list)
        or len(shape) > RANK_MAX
        or any(type(size) is not int or not 0 <= size <= ELEMENTS_MAX for size in shape)
    ):
        raise wrong(f"{where}.shape: ", shape, f", expected at most {RANK_MAX} sizes")
    count = math.prod(shape)
    if count > ELEMENTS_MAX:
        raise RequestRejected(f"{where}: {count} elements, at most {ELEMENTS_MAX}")
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None:
        raise wrong(f"{where}.base64: ", text, ", expected base64 text", 40)
    if len(data) != count * dtype.itemsize:
        raise RequestRejected(
            f"{where}: {len(data)} bytes, shape {shape} of {dtype.name} has "
            f"{count * dtype.itemsize}"
        )
    if dtype.kind == "b" and data.strip(b"\0\1"):
        raise RequestRejected(f"{where}: a byte of a bool is neither 0 nor 1")
    array = np.frombuffer(data, dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestRejected(f"{where}: a value is NaN or Inf")
    return array


def _shape_of(data: Any, where: str) -> tuple[int, ...]:
    """Shape by the first element of each list; `_flatten` finds what is ragged."""
    shape: list[int] = []
    while isinstance(data, list):
        if len(shape) == RANK_MAX:
            raise RequestRejected(f"{where}.data: more than {RANK_MAX} dimensions")
        shape.append(len(data))
        if not data:
            break
        data = data[0]
    count = math.prod(shape)
    if count > ELEMENTS_MAX:
        raise RequestRejected(f"{where}: {count} elements, at most {ELEMENTS_MAX}")
    return tuple(shape)


def _flatten(data: Any, shape: tuple[int, ...], flat: list[Any], where: str) -> None:
    if not shape:
        flat.append(data)
        return
    if not isinstance(data, list) or len(data) != shape[0]:
        raise RequestRejected(f"{where}.data: ragged, a list has not {shape[0]} elements")
    for item in data:
        _flatten(item, shape[1:], flat, where)


def _check(item: Any, dtype: np.dtype[Any], where: str) -> None:
    """One number against the type it is to become."""
    good = type(item) is bool
    if dtype.kind == "f":
        good = type(item) in (int, float) and abs(item) <= FLOAT_MAX
    elif dtype.kind in "iu":
        range_ = np.iinfo(dtype)
        good = type(item) is int and range_.min <= item <= range_.max
    if not good:
        raise wrong(f"{where}.data: ", item, f" is no {dtype.name}", 40)
