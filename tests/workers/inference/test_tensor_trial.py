"""The self-test of graphs of tensors, on graphs built here and ONNX Runtime itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorfolders
from onnx import TensorProto, helper

from lockstep.engine.fleet import Model
from lockstep.workers.inference.graph import Port
from lockstep.workers.inference.tensor_model import TensorModel
from lockstep.workers.inference.tensor_trial import ELEMENTS_MAX, inputs_of


def loaded(folder: Path, cache: Path | None = None) -> TensorModel:
    model = Model("m", str(folder), ("cpu",), "", 1, 4, 64, 64, 1, kind="tensors")
    made = TensorModel(model, cache=cache)
    made.close()
    return made


def chance(folder: Path) -> Path:
    """``y = x`` with noise that has no seed."""
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["r"]),
             helper.make_node("Add", ["x", "r"], ["y"])]  # fmt: skip
    inputs, outputs = ([info(name, TensorProto.FLOAT, ["n"])] for name in "xy")
    return tensorfolders.save(folder, helper.make_graph(nodes, "chance", inputs, outputs))


def particular(folder: Path, size: int) -> Path:
    """``y = x`` in another shape, of so many elements whatever the input says."""
    info = helper.make_tensor_value_info
    shape = helper.make_node("Constant", [], ["s"], value_ints=[size])
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    inputs = [info("x", TensorProto.FLOAT, ["n"])]
    outputs = [info("y", TensorProto.FLOAT, [size])]
    return tensorfolders.save(folder, helper.make_graph([shape, node], "g", inputs, outputs))


def test_a_graph_that_repeats_itself_is_of_class_run(tmp_path: Path) -> None:
    assert loaded(tensorfolders.arithmetic(tmp_path / "a")).proven == "run"
    assert loaded(tensorfolders.embedding(tmp_path / "e")).proven == "run"
    assert loaded(tensorfolders.identity(tmp_path / "i", TensorProto.BOOL)).proven == "run"


def test_a_graph_of_chance_is_told_loudly(tmp_path: Path) -> None:
    model = loaded(chance(tmp_path))
    assert model.proven == "none"
    assert any("THIS RUN CANNOT BE REPEATED on cpu" in note for note in model.notes())


@pytest.mark.parametrize(("size", "proven"), [(4, "run"), (1, "run"), (3, "")])
def test_a_graph_that_takes_no_such_inputs_has_no_class(
    tmp_path: Path, size: int, proven: str
) -> None:
    model = loaded(particular(tmp_path, size))
    assert model.proven == proven and model.notes() == []


def test_what_was_proven_is_kept(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = tensorfolders.arithmetic(tmp_path / "model")
    assert loaded(folder, cache).proven == "run"
    (kept,) = (cache / "proofs").iterdir()
    kept.write_text(kept.read_text().replace('"run"', '"none"'))
    assert loaded(folder, cache).proven == "none"


def test_inputs_are_the_same_everywhere_and_not_too_large() -> None:
    ports = [Port("x", "float16", ("n", 2)), Port("i", "int64", (3,)), Port("b", "bool", ())]
    made = inputs_of(ports, 4)
    assert made is not None
    assert made["x"].shape == (4, 2) and made["x"].dtype == np.float16
    assert np.abs(made["x"]).max() <= 1 and np.unique(made["x"]).size > 4
    assert made["i"].tolist() == [0, 1, 0] and made["b"].shape == ()
    assert inputs_of([Port("x", "uint8", ("n", ELEMENTS_MAX))], 4) is None
