"""Hostile models: real folders whose graph does what no good graph does, made with `onnx.helper`.

Each is the float32 micro model with something done to its graph. Those that compute do so until
`TRIGGER` is in a prompt, so that a run can begin with them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import fleets
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TRIGGER = 3  # A token id: "!" in the micro model's tokenizer.
RAW = "raw_logits"  # The logits before anything is done to them.

Change = Callable[[onnx.ModelProto], None]


def folder(path: Path, change: Change, context: int | None = None) -> Path:
    """A model folder with a changed graph."""
    shutil.copytree(fleets.MODEL, path)
    (path / "expected.json").unlink()
    model = onnx.load(path / "model.onnx", load_external_data=False)
    change(model)
    (path / "model.onnx").write_bytes(model.SerializeToString())
    if context is not None:
        config = json.loads((path / "genai_config.json").read_text())
        config["model"]["context_length"] = context
        (path / "genai_config.json").write_text(json.dumps(config))
    return path


def _weight(model: onnx.ModelProto, name: str, value: object) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _move_logits(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "logits":
                node.output[index] = RAW


def _add(model: onnx.ModelProto, op: str, inputs: list[str], output: str, **more: object) -> str:
    model.graph.node.append(helper.make_node(op, inputs, [output], f"hostile/{output}", **more))
    return output


def nan_rows(model: onnx.ModelProto) -> None:
    """Rows whose ids have `TRIGGER` in them get NaN as logits; the others keep theirs."""
    _move_logits(model)
    trigger = _weight(model, "trigger", np.int64(TRIGGER))
    _add(model, "Equal", ["input_ids", trigger], "hit")
    _add(model, "Cast", ["hit"], "hits", to=TensorProto.FLOAT)
    axis = _weight(model, "hit_axis", np.array([1], np.int64))
    _add(model, "ReduceMax", ["hits", axis], "row_hit", keepdims=1)
    _add(model, "Cast", ["row_hit"], "row_is_hit", to=TensorProto.BOOL)
    nan, zero = _weight(model, "nan", np.float32("nan")), _weight(model, "zero", np.float32(0))
    _add(model, "Where", ["row_is_hit", nan, zero], "poison")
    last = _weight(model, "last_axis", np.array([2], np.int64))
    _add(model, "Unsqueeze", ["poison", last], "wide_poison")
    _add(model, "Add", [RAW, "wide_poison"], "logits")


def _loop(model: onnx.ModelProto, condition: str) -> None:
    """Logits that wait for a loop without a bound, as long as ``condition`` holds at its start."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still_on"]),
            helper.make_node("Add", ["sum", "sum"], ["twice"]),
        ],
        "body",
        [
            info("round", TensorProto.INT64, []),
            info("on", TensorProto.BOOL, []),
            info("sum", TensorProto.FLOAT, []),
        ],
        [info("still_on", TensorProto.BOOL, []), info("twice", TensorProto.FLOAT, [])],
    )
    zero = _weight(model, "zero", np.float32(0))
    _add(model, "Loop", ["", condition, zero], "looped", body=body)
    _add(model, "Add", [RAW, "looped"], "logits")


def endless(model: onnx.ModelProto) -> None:
    """A step that never ends, whatever is asked."""
    _move_logits(model)
    _loop(model, _weight(model, "always", np.bool_(True)))


def endless_when_asked(model: onnx.ModelProto) -> None:
    """A step that never ends once `TRIGGER` is among its ids."""
    _move_logits(model)
    _add(model, "Equal", ["input_ids", _weight(model, "trigger", np.int64(TRIGGER))], "hit")
    _add(model, "Cast", ["hit"], "hits", to=TensorProto.INT32)
    _add(model, "ReduceMax", ["hits"], "any_hit", keepdims=0)
    _add(model, "Cast", ["any_hit"], "is_hit", to=TensorProto.BOOL)
    _loop(model, "is_hit")


def noise(model: onnx.ModelProto) -> None:
    """Other bits in every run: class none."""
    model.opset_import[0].version = 21  # ONNX Runtime draws in no later one.
    _move_logits(model)
    _add(model, "RandomNormalLike", [RAW], "noise", scale=1e-3)
    _add(model, "Add", [RAW, "noise"], "logits")


def fails_when_run(model: onnx.ModelProto) -> None:
    """Loads, and fails at its first step: a table that has fewer rows than ids ask for."""
    _move_logits(model)
    table = _weight(model, "table", np.zeros(1, np.float32))
    _add(model, "Gather", [table, "input_ids"], "looked_up")
    last = _weight(model, "last_axis", np.array([2], np.int64))
    _add(model, "Unsqueeze", ["looked_up", last], "wide")
    _add(model, "Add", [RAW, "wide"], "logits")


def fails_when_asked(model: onnx.ModelProto) -> None:
    """Fails at a step that has `TRIGGER` among its ids, by a lookup behind a table's end."""
    _move_logits(model)
    _add(model, "Equal", ["input_ids", _weight(model, "trigger", np.int64(TRIGGER))], "hit")
    _add(model, "Cast", ["hit"], "hits", to=TensorProto.INT64)
    table = _weight(model, "table", np.zeros(1, np.float32))
    _add(model, "Gather", [table, "hits"], "looked_up")
    last = _weight(model, "last_axis", np.array([2], np.int64))
    _add(model, "Unsqueeze", ["looked_up", last], "wide")
    _add(model, "Add", [RAW, "wide"], "logits")


def unknown_op(model: onnx.ModelProto) -> None:
    _move_logits(model)
    _add(model, "NoSuchOperator", [RAW], "logits")


def custom_domain(model: onnx.ModelProto) -> None:
    _move_logits(model)
    model.opset_import.append(helper.make_opsetid("com.example.custom", 1))
    _add(model, "Identity", [RAW], "logits", domain="com.example.custom")


def wrong_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def ir_too_new(model: onnx.ModelProto) -> None:
    model.ir_version = 999


def giant_initialiser(model: onnx.ModelProto) -> None:
    """Claims 4 EiB of weights and has four bytes of them."""
    _move_logits(model)
    model.graph.initializer.append(
        TensorProto(
            data_type=TensorProto.FLOAT, dims=[1 << 30, 1 << 30], raw_data=bytes(4), name="giant"
        )
    )
    _add(model, "ReduceMax", ["giant"], "largest", keepdims=0)
    _add(model, "Add", [RAW, "largest"], "logits")


def _external(model: onnx.ModelProto, key: str, value: str) -> None:
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == key:
                entry.value = value
                return
    raise AssertionError("no external data in the micro model")


def external_beyond_its_file(model: onnx.ModelProto) -> None:
    _external(model, "offset", str(1 << 40))


def external_before_its_file(model: onnx.ModelProto) -> None:
    _external(model, "offset", "-4096")


def external_longer_than_its_shape(model: onnx.ModelProto) -> None:
    _external(model, "length", str(1 << 40))


def giant_shape_while_running(model: onnx.ModelProto) -> None:
    """Asks for 16 TiB in its first step."""
    _move_logits(model)
    shape = _weight(model, "giant_shape", np.array([1 << 22, 1 << 20], np.int64))
    _add(model, "Shape", ["input_ids"], "size")
    _add(model, "Mul", [shape, "size"], "giant_size")
    _add(model, "ConstantOfShape", ["giant_size"], "giant")
    _add(model, "ReduceMax", ["giant"], "largest", keepdims=0)
    _add(model, "Add", [RAW, "largest"], "logits")


def cycle(model: onnx.ModelProto) -> None:
    _move_logits(model)
    _add(model, "Add", [RAW, "b"], "a")
    _add(model, "Identity", ["a"], "b")
    _add(model, "Identity", ["b"], "logits")


REFUSED: dict[str, tuple[Change, str]] = {
    "unknown operator": (unknown_op, "NoSuchOperator"),
    "operator of a custom domain": (custom_domain, "com.example.custom"),
    "opset that does not exist": (wrong_opset, "999"),
    "IR version that does not exist": (ir_too_new, "999"),
    "initialiser that claims more than it has": (giant_initialiser, "giant"),
    "weights beyond the end of their file": (external_beyond_its_file, "onnxruntime refuses"),
    "weights before their file": (external_before_its_file, "onnxruntime refuses"),
    "weights longer than their shape": (external_longer_than_its_shape, "onnxruntime refuses"),
    "graph with a cycle": (cycle, "onnxruntime refuses"),
    "lookup that fails when it runs": (fails_when_run, "cannot run it"),
    "tensor larger than any memory": (giant_shape_while_running, "cannot run it"),
}
