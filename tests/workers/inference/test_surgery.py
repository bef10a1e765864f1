"""Logits of the last position: the edit with the onnx package as judge, the numbers with ORT's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lockstep.workers.inference import provider
from lockstep.workers.inference.greedy import generate
from lockstep.workers.inference.ort import ort
from lockstep.workers.inference.surgery import PREFIX, last_position_only

DATA = Path(__file__).parents[2] / "data"
FOLDERS = sorted(path.parent for path in DATA.glob("*/model.onnx"))
SHARED = [path for path in FOLDERS if (path / "genai_config.json").exists()]  # One KV buffer.
HIDDEN, VOCAB = 4, 7


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_edit_is_the_one_that_the_onnx_package_would_make(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    changed = last_position_only(data, "logits")
    assert changed is not None
    assert onnx.ModelProto.FromString(changed) == by_hand(data)


def by_hand(data: bytes) -> onnx.ModelProto:
    """The edit of a graph whose last matrix gives the logits, made with objects."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    place, head = next((n, node) for n, node in enumerate(graph.node) if "logits" in node.output)
    gather = helper.make_node(
        "Gather", [head.input[0], f"{PREFIX}/index"], [PREFIX], f"{PREFIX}/Gather", axis=1
    )
    head.input[0] = PREFIX
    graph.node.insert(place, gather)
    index = np.array([-1], np.int64)
    graph.initializer.append(numpy_helper.from_array(index, f"{PREFIX}/index"))
    logits = next(port for port in graph.output if port.name == "logits")
    logits.type.tensor_type.shape.dim[1].dim_value = 1
    return model


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a decoder of the graph as it is in its file."""

    def make(decoder: Any, *args: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(provider, "last_position_only", lambda data, logits: None)
            return decoder(*args)

    return make


def prompts_of(vocab: int) -> list[tuple[int, ...]]:
    return [tuple((7 * n + 3) % vocab for n in range(size)) for size in (1, 2, 17, 40)]


@pytest.mark.parametrize("folder", SHARED, ids=lambda path: path.name)
def test_first_logits_are_near_and_rows_behind_them_keep_every_bit(
    folder: Path, decoder: Any, plain: Any
) -> None:
    """Decoded rows see keys and values alone, which the end of the graph does not touch."""
    old, new = plain(decoder, folder), decoder(folder)
    assert (old.last_only, new.last_only) == (False, True)
    prompts = prompts_of(old.facts.vocab)
    before, after = generate(old, prompts, 12), generate(new, prompts, 12)
    for a, b in zip(before, after, strict=True):
        assert a.tokens == b.tokens
        assert np.abs(a.logits[0] - b.logits[0]).max() <= 1e-5
        assert a.logits[1:].tobytes() == b.logits[1:].tobytes()
    assert old.slab.array.tobytes() == new.slab.array.tobytes()


def test_the_buffer_of_logits_has_a_row_for_each_row_not_for_each_token(
    fp32: Path, decoder: Any
) -> None:
    made = decoder(fp32, rows=2)
    generate(made, prompts_of(512), 2)
    assert made._logits.size == 2 * 512


# -- ends of graphs ------------------------------------------------------------------------------


def model_of(
    nodes: list[Any], weights: dict[str, Any] | None = None, opset: int = 18, **more: Any
) -> bytes:
    """A model from ``x`` (batch, length, HIDDEN) to ``logits``; W is its matrix."""
    rng = np.random.Generator(np.random.PCG64(3))
    matrix = rng.standard_normal((HIDDEN, VOCAB), dtype=np.float32)
    named = {"W": matrix, "two": np.float32(2.0), "bias": matrix[0]} | (weights or {})
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", HIDDEN])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", VOCAB]),
            *more.get("outputs", ()),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in named.items()],
        value_info=more.get("values", ()),
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(made.SerializeToString())


def node(op: str, *inputs: str, out: str = "logits", **attributes: Any) -> Any:
    return helper.make_node(op, list(inputs), [out], **attributes)


def value(name: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "length", VOCAB])


SOFT_CAP = [
    node("MatMul", "x", "W", out="a"),
    node("Div", "a", "two", out="b"),
    node("Tanh", "b", out="c"),
    node("Mul", "two", "c"),
]
RECOGNISED = {
    "matrix": [node("MatMul", "x", "W")],
    "soft-cap": SOFT_CAP,
    "bias": [node("MatMul", "x", "W", out="a"), node("Add", "a", "bias")],
    "cast": [node("MatMul", "x", "W", out="a"), node("Cast", "a", to=TensorProto.FLOAT)],
    "tied": [
        node("Transpose", "W", out="t", perm=[1, 0]),
        node("Transpose", "t", out="u", perm=[1, 0]),
        node("MatMul", "x", "u"),
    ],
    "constant": [
        node("Constant", out="k", value_float=3.0),
        node("MatMul", "x", "W", out="a"),
        node("Mul", "a", "k"),
    ],
    "norm before": [node("Tanh", "x", out="n"), node("MatMul", "n", "W")],
}


@pytest.mark.parametrize("name", RECOGNISED)
def test_a_recognised_end_gives_the_last_row_of_what_it_gave(name: str) -> None:
    data = model_of(RECOGNISED[name], values=[value("a")])
    changed = last_position_only(data, "logits")
    assert changed is not None
    onnx.checker.check_model(onnx.load_from_string(changed), full_check=True)
    x = np.random.Generator(np.random.PCG64(4)).standard_normal((3, 5, HIDDEN), np.float32)
    whole, last = run(data, x), run(changed, x)
    assert last.shape == (3, 1, VOCAB)
    assert np.abs(whole[:, -1:] - last).max() < 1e-6
    one = np.ascontiguousarray(x[:, -1:])
    assert run(data, one).tobytes() == run(changed, one).tobytes()
    assert last_position_only(changed, "logits") is None  # Once.


def run(data: bytes, x: Any) -> Any:
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(["logits"], {"x": x})[
        0
    ]


BRANCH = helper.make_graph(
    [helper.make_node("Identity", ["a"], ["inside"])], "branch", [], [value("inside")]
)
LEFT_ALONE = {
    "a value between is an output": (
        [node("MatMul", "x", "W", out="a"), node("Tanh", "a")],
        {"outputs": [value("a")]},
    ),
    "a value between is read twice": (
        [node("MatMul", "x", "W", out="a"), node("Mul", "a", "a")],
        {},
    ),
    "a subgraph reads a value between": (
        [
            node("MatMul", "x", "W", out="a"),
            node("If", "yes", out="c", then_branch=BRANCH, else_branch=BRANCH),
            node("Tanh", "a"),
        ],
        {"weights": {"yes": np.bool_(True)}, "outputs": [value("c")]},
    ),
    "positions are mixed behind the matrix": (
        [node("MatMul", "x", "W", out="a"), node("Softmax", "a", axis=1)],
        {},
    ),
    "positions are scaled by all of them": (
        [
            node("MatMul", "x", "W", out="a"),
            node("ReduceMax", "x", out="m", keepdims=1),
            node("Mul", "a", "m"),
        ],
        {},
    ),
    "a factor for each position": (
        [node("MatMul", "x", "W", out="a"), node("Mul", "a", "wide")],
        {"weights": {"wide": np.ones((1, 5, 1), np.float32)}},
    ),
    "the matrix is computed": (
        [
            node("ReduceMax", "x", out="m", keepdims=0),
            node("Mul", "W", "m", out="v"),
            node("MatMul", "x", "v"),
        ],
        {},
    ),
    "a matrix for each batch row": (
        [node("MatMul", "x", "V")],
        {"weights": {"V": np.ones((1, HIDDEN, VOCAB), np.float32)}},
    ),
    "Gather of an old opset": ([node("MatMul", "x", "W")], {"opset": 10}),
    "logits are read again": (
        [node("MatMul", "x", "W"), node("Tanh", "logits", out="c")],
        {"outputs": [value("c")]},
    ),
    "our name is taken": (
        [node("Tanh", "x", out=PREFIX), node("MatMul", PREFIX, "W")],
        {},
    ),
    "the constant divides": (
        [node("MatMul", "x", "W", out="a"), node("Div", "two", "a")],
        {},
    ),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_an_end_that_is_not_recognised_is_left_alone(name: str) -> None:
    nodes, more = LEFT_ALONE[name]
    data = model_of(nodes, **more)
    onnx.checker.check_model(onnx.load_from_string(data))
    assert last_position_only(data, "logits") is None
    assert last_position_only(data, "nothing") is None


def test_logits_that_no_node_makes_are_left_alone() -> None:
    assert last_position_only(model_of([node("Tanh", "x", out="y")]), "logits") is None


@given(st.data())
def test_any_damage_to_a_graph_is_left_alone_or_gives_a_file_that_can_be_read(
    data: st.DataObject,
) -> None:
    good = bytearray(model_of(SOFT_CAP))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] = data.draw(st.integers(0, 255))
    damaged = bytes(good[: data.draw(st.integers(at, len(good)))])
    changed = last_position_only(damaged, "logits")
    try:
        onnx.ModelProto.FromString(damaged)
    except DecodeError:
        return  # ONNX Runtime will refuse it, changed or not.
    if changed is not None:
        before = onnx.ModelProto.FromString(damaged).graph
        after = onnx.ModelProto.FromString(changed).graph
        assert len(after.node) == len(before.node) + 1


def test_weights_inside_the_file_are_copied_as_they_are() -> None:
    big = np.arange(HIDDEN * VOCAB, dtype=np.float32).reshape(HIDDEN, VOCAB)
    data = model_of([node("MatMul", "x", "W")], {"W": big})
    changed = last_position_only(data, "logits")
    assert changed is not None and big.tobytes() in changed
