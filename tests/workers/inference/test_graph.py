"""The protobuf walker against the `onnx` package, and against damaged bytes."""

from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.graph import DEPTH_MAX, NODES_MAX, Graph, read_graph

MODEL = Path(__file__).parents[2] / "data" / "genai-micro-int4" / "model.onnx"
BYTES = MODEL.read_bytes()

# A loaded machine is slow; that is not a fault of what is tested.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def external(name: str, location: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def model_of(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph)


def test_ports_files_and_operators_are_those_that_onnx_reads() -> None:
    graph = read_graph(BYTES, "m")
    want = onnx.load(MODEL, load_external_data=False).graph
    assert [port.name for port in graph.inputs] == [port.name for port in want.input]
    assert [port.name for port in graph.outputs] == [port.name for port in want.output]
    assert graph.files == ("model.onnx.data",)
    assert set(graph.operators) == {node.op_type for node in want.node}
    for port, theirs in zip(graph.inputs, want.input, strict=True):
        tensor = theirs.type.tensor_type
        assert port.dtype == {1: "float32", 7: "int64"}[tensor.elem_type]
        assert port.shape == tuple(dim.dim_value or dim.dim_param for dim in tensor.shape.dim)


def test_files_are_found_wherever_a_tensor_can_hide() -> None:
    inner = helper.make_graph([], "inner", [], [], [external("a", "in_subgraph")])
    other = helper.make_graph([], "other", [], [])
    sparse = onnx.SparseTensorProto(
        values=external("v", "in_values"), indices=external("i", "in_indices"), dims=[4]
    )
    other.sparse_initializer.append(sparse)
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other),
        helper.make_node("Constant", [], ["t"], value=external("t", "in_attribute")),
        helper.make_node("Many", [], ["u"], domain="d", many=[external("u", "in_list")]),
        helper.make_node("Sparse", [], ["w"], sparse_value=sparse),
        helper.make_node("Graphs", [], ["x"], graphs=[inner]),
    ]
    graph = helper.make_graph(nodes, "g", [], [], [external("w", "in_top")])
    model = model_of(graph)
    function = helper.make_function(
        "d", "f", [], ["z"],
        [helper.make_node("Constant", [], ["z"], value=external("z", "in_function"))],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    model.functions.append(function)
    training = model.training_info.add()
    training.initialization.CopyFrom(
        helper.make_graph([], "i", [], [], [external("i", "in_training")])
    )
    found = read_graph(model.SerializeToString(), "m")
    assert found.files == tuple(
        sorted(
            f"in_{place}"
            for place in (
                "subgraph", "values", "indices", "attribute", "list", "top", "function", "training",
            )
        )
    )  # fmt: skip
    assert {"If", "Constant", "Many"} <= set(found.operators)


def test_initialisers_listed_as_inputs_are_not_inputs() -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "w")]
    graph = helper.make_graph([], "g", ports, [], [weight])
    assert [port.name for port in read_graph(model_of(graph).SerializeToString(), "m").inputs] == [
        "x"
    ]


def test_nesting_beyond_the_limit_is_refused() -> None:
    graph = helper.make_graph([], "g", [], [])
    for _ in range(DEPTH_MAX // 3 + 1):
        graph = helper.make_graph([helper.make_node("If", [], [], then_branch=graph)], "g", [], [])
    with pytest.raises(ModelRejected, match=f"nested more than {DEPTH_MAX}"):
        read_graph(model_of(graph).SerializeToString(), "m")


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x3b",
        b"\x80" * 11,
        b"\x00\x00",
        b"\x3a",
        b"\x09\x00",
        b"\xba\x80\x80\x80\x10\x00",
    ],
    ids=["length", "group", "varint", "field 0", "no length", "cut fixed64", "wide key"],
)
def test_malformed_bytes_are_refused_with_their_place(data: bytes) -> None:
    with pytest.raises(ModelRejected, match=r"m: byte \d+ of"):
        read_graph(data, "m")


def test_empty_bytes_are_an_empty_graph_and_left_to_the_signature() -> None:
    assert read_graph(b"", "m") == Graph((), (), (), ())


@relaxed
@given(st.integers(0, len(BYTES)))
def test_truncation_at_any_byte_is_refused_or_read_without_another_error(cut: int) -> None:
    try:
        read_graph(BYTES[:cut], "m")
    except ModelRejected as error:
        assert f"of {cut}" in str(error)


@relaxed
@given(st.lists(st.tuples(st.integers(0, len(BYTES) - 1), st.integers(0, 255)), max_size=5))
def test_flipped_bytes_raise_nothing_else(changes: list[tuple[int, int]]) -> None:
    data = bytearray(BYTES)
    for at, value in changes:
        data[at] = value
    try:
        read_graph(bytes(data), "m")
    except ModelRejected:
        pass


@relaxed
@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        read_graph(data, "m")
    except ModelRejected:
        pass


def test_nodes_their_whole_numbers_and_opsets_are_read() -> None:
    inner = helper.make_graph([helper.make_node("Neg", ["c"], ["d"])], "inner", [], [])
    nodes = [
        helper.make_node("Cast", ["a"], ["b"], to=7, name="n"),
        helper.make_node("Attention", ["b", "", "c"], ["d"], domain="com.x", window=-1, scale=0.5),
        helper.make_node("If", ["d"], ["e"], then_branch=inner, domain="ai.onnx"),
    ]
    opsets = [helper.make_opsetid("ai.onnx", 18), helper.make_opsetid("com.x", 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []), opset_imports=opsets)
    found = read_graph(model.SerializeToString(), "m.onnx")
    assert found.opsets == {"": 18, "com.x": 1}
    assert [(node.operator, node.domain, node.inputs, node.outputs, node.numbers)
            for node in found.nodes] == [
        ("Cast", "", ("a",), ("b",), {"to": 7}),
        ("Attention", "com.x", ("b", "", "c"), ("d",), {"window": -1}),
        ("If", "", ("d",), ("e",), {}),
        ("Neg", "", ("c",), ("d",), {}),
    ]  # fmt: skip
    assert not found.functions


def test_a_file_of_nothing_but_operators_is_refused_in_time() -> None:
    count = NODES_MAX + 1
    graph = b"\x0a\x00" * count
    size = len(graph)
    length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    with pytest.raises(ModelRejected, match="more than 1048576 operators and tensors"):
        read_graph(b"\x3a" + length + graph, "m.onnx")
