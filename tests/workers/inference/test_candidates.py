"""Candidates cut by the graph: they are those that the sampler would have found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lockstep.workers.inference.candidates import IDS, SOUND, VALUES, with_candidates
from lockstep.workers.inference.ort import ort
from lockstep.workers.inference.surgery import last_position_only

DATA = Path(__file__).parents[2] / "data"
FOLDERS = sorted(path.parent for path in DATA.glob("*/model.onnx"))
VOCAB = 40


def model_of(opset: int = 18, kind: int = TensorProto.FLOAT, name: str = "logits") -> bytes:
    """Logits are what comes in: (batch, length, VOCAB)."""
    dims = ["batch", "length", VOCAB]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], [name])],
        "main",
        [helper.make_tensor_value_info("x", kind, dims)],
        [helper.make_tensor_value_info(name, kind, dims)],
    )
    opsets = [helper.make_opsetid("", opset)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(made.SerializeToString())


def run(data: bytes, x: Any, names: tuple[str, ...] = (VALUES, IDS)) -> list[Any]:
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(names, {"x": x})
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_number_says_that_all_logits_of_a_row_are_finite(dtype: Any, bad: float) -> None:
    x = np.full((2, 2, VOCAB), np.finfo(dtype).max, dtype)
    x[1, 0, VOCAB - 1] = bad
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    changed = with_candidates(model_of(kind=kind), "logits", 2)
    assert changed is not None
    (sound,) = run(changed, x, (SOUND,))
    assert np.isfinite(sound[..., 0]).tolist() == [[True, True], [False, True]]


@pytest.mark.parametrize("count", [1, 7, VOCAB])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_they_are_the_largest_first_ties_by_token_id(count: int, dtype: Any) -> None:
    # Few different values, so that most are equal to others.
    rng = np.random.Generator(np.random.PCG64(count))
    x = rng.integers(-3, 3, (3, 2, VOCAB)).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    changed = with_candidates(model_of(kind=kind), "logits", count)
    assert changed is not None
    onnx.checker.check_model(onnx.load_from_string(changed), full_check=True)
    values, ids = run(changed, x)
    wanted = np.lexsort((np.broadcast_to(np.arange(VOCAB), x.shape), -x), axis=-1)[..., :count]
    assert (ids == wanted).all()
    assert values.tobytes() == np.take_along_axis(x, wanted, -1).tobytes()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_edit_is_the_one_that_the_onnx_package_would_make(folder: Path) -> None:
    data = last_position_only((folder / "model.onnx").read_bytes(), "logits")
    assert data is not None
    changed = with_candidates(data, "logits", 64)
    assert changed is not None
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    place = "lockstep/candidates"
    count, zeros, axes = f"{place}/count", f"{place}/zeros", f"{place}/axes"
    graph.node.extend(
        [
            helper.make_node("TopK", ["logits", count], [VALUES, IDS], f"{place}/TopK", axis=-1),
            helper.make_node("Sub", ["logits", "logits"], [zeros], f"{place}/Sub"),
            helper.make_node("ReduceSum", [zeros, axes], [SOUND], f"{place}/ReduceSum"),
        ]
    )
    graph.initializer.append(numpy_helper.from_array(np.array([64], np.int64), count))
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), axes))
    for name, kind, size in (
        (VALUES, TensorProto.FLOAT, 64),
        (IDS, TensorProto.INT64, 64),
        (SOUND, TensorProto.FLOAT, 1),
    ):
        dims = ["batch_size", 1, size]
        graph.output.append(helper.make_tensor_value_info(name, kind, dims))
    assert onnx.ModelProto.FromString(changed) == model


def test_what_cannot_have_them_is_left_alone() -> None:
    good = model_of()
    changed = with_candidates(good, "logits", 3)
    assert changed is not None
    assert with_candidates(changed, "logits", 3) is None
    assert with_candidates(good, "nothing", 3) is None
    assert with_candidates(model_of(opset=12), "logits", 3) is None
    assert with_candidates(good[:-1], "logits", 3) is None


def test_an_infinite_logit_is_the_first_candidate() -> None:
    x = np.zeros((1, 1, VOCAB), np.float32)
    x[0, 0, 5] = np.inf
    changed = with_candidates(model_of(), "logits", 2)
    assert changed is not None
    values, ids = run(changed, x)
    assert (values[0, 0, 0], ids[0, 0, 0], ids[0, 0, 1]) == (np.inf, 5, 0)
