"""Surgery: the end of a decoder's graph, changed in memory before the session is made.

Exporters compute logits for every position of a prompt. One row of them is used, the last one, so
a Gather of the last position is put before the output matrix: the logits are then (batch, 1,
vocab), and a chunk of prefill does not pay for a vocabulary at each of its tokens. The files stay
as they are, and so do their hashes in a run's identity.

What makes it right. The last position of the logits must be a function of the last position of
the matrix's input alone. That holds for what is recognised here, walking up from the logits:

    logits <- any of: Cast, Tanh; Mul, Div, Add with a constant of rank 0 or 1 (soft-cap, bias)
           <- MatMul with a constant matrix of rank 2, or MatMulNBits with constant weights

provided that nobody else reads what lies between, which changes its shape. A constant is an
initialiser, or made of initialisers alone by Transpose, Cast, DequantizeLinear or Identity.
Anything else (weights quantised while running: their scale is one number for all positions) is left
alone: logits of every position are then computed, as the exporter has it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lockstep.workers.inference.protobuf import (
    BYTES,
    bytes_field,
    field_parts,
    fields,
    inner,
    number_field,
    numbers,
    text,
)

# Field numbers of onnx.proto.
MODEL_GRAPH, MODEL_OPSET = 7, 8
OPSET_DOMAIN, OPSET_VERSION = 1, 2
GRAPH_NODE, GRAPH_WEIGHT, GRAPH_OUTPUT, GRAPH_VALUE = 1, 5, 12, 13
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OP, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 3, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_TENSOR = 1, 3, 5
ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS, ATTRIBUTE_TYPE = 6, 11, 20
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW = 1, 2, 8, 9
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR, TENSOR_ELEMENT, TENSOR_SHAPE, SHAPE_DIM, DIM_VALUE = 1, 1, 2, 1, 1

INT64 = 7
ATTRIBUTE_IS_INT = 2
GATHER_OPSET_MIN = 11  # Indices below 0 count from the end since then.
TAIL_MAX = 16  # Nodes between the matrix and the logits.
DEPTH_MAX = 64  # Graphs in attributes of nodes, constants made of constants.
UNARY = ("Cast", "Tanh")
BINARY = ("Mul", "Div", "Add")
MADE = ("Transpose", "Cast", "DequantizeLinear", "Identity")
CONSTANT_RANKS = {"value_int": 0, "value_float": 0, "value_ints": 1, "value_floats": 1}
MATRIX, MATRIX_NBITS = "MatMul", "MatMulNBits"
STANDARD, MICROSOFT = ("", "ai.onnx"), ("com.microsoft",)
PREFIX = "lockstep/last_position"


@dataclass(frozen=True, slots=True)
class _Node:
    """One node of the top graph. ``place`` is its field's place among the graph's fields."""

    place: int
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    body: memoryview = field(repr=False)

    def is_standard(self, *ops: str) -> bool:
        return self.domain in STANDARD and self.op in ops


class _Graph:
    """The top graph, as far as its end is concerned. Raises ValueError when malformed."""

    def __init__(self, body: memoryview) -> None:
        self.makers: dict[str, _Node] = {}
        self.weights: dict[str, int] = {}  # Name to rank.
        self.readers: Counter[str] = Counter()
        self.outputs: set[str] = set()
        for place, each in enumerate(fields(body)):
            if each.wire != BYTES:
                continue
            if each.number == GRAPH_NODE:
                self._node(place, each.body)
            elif each.number == GRAPH_WEIGHT:
                self.weights[text(each.body, TENSOR_NAME)] = len(numbers(each.body, TENSOR_DIMS))
            elif each.number == GRAPH_OUTPUT:
                self.outputs.add(text(each.body, VALUE_NAME))

    def _node(self, place: int, body: memoryview) -> None:
        node = _Node(
            place,
            text(body, NODE_OP),
            text(body, NODE_DOMAIN),
            _texts(body, NODE_INPUT),
            _texts(body, NODE_OUTPUT),
            body,
        )
        self.makers.update((name, node) for name in node.outputs if name)
        self.readers.update(_read_by(body))

    def rank(self, name: str, depth: int = 0) -> int | None:
        """Rank of a constant; None: it is none, or of no rank that is known here."""
        if name in self.weights:
            return self.weights[name]
        node = self.makers.get(name)
        if node is None or depth > DEPTH_MAX:
            return None
        if node.is_standard("Constant") and not node.inputs:
            return _constant_rank(node.body)
        if not node.is_standard(*MADE):
            return None
        ranks = [self.rank(each, depth + 1) for each in node.inputs if each]
        return None if None in ranks or not ranks else ranks[0]

    def has(self, prefix: str) -> bool:
        """Whether a name begins so."""
        return any(name.startswith(prefix) for name in (*self.makers, *self.weights))

    def alone(self, name: str) -> bool:
        """Whether one node reads it and it is no output of the graph."""
        return self.readers[name] == 1 and name not in self.outputs

    def head(self, logits: str) -> tuple[_Node, list[str]] | None:
        """The node with the output matrix and what lies behind it; None: not recognised."""
        behind, name = [logits], logits
        if self.readers[logits]:
            return None
        for _ in range(TAIL_MAX):
            node = self.makers.get(name)
            if node is None or node.outputs != (name,):
                return None
            if self._is_matrix(node):
                return node, behind
            before = self._before(node)
            if before is None or not self.alone(before):
                return None
            name = before
            behind.append(name)
        return None

    def _is_matrix(self, node: _Node) -> bool:
        if node.is_standard(MATRIX):
            return len(node.inputs) == 2 and self.rank(node.inputs[1]) == 2
        if node.op == MATRIX_NBITS and node.domain in MICROSOFT:
            rest = [name for name in node.inputs[1:] if name]
            return len(rest) > 1 and all(self.rank(name) is not None for name in rest)
        return False

    def _before(self, node: _Node) -> str | None:
        """What a node of the tail works on position by position; None: it may do otherwise."""
        if node.is_standard(*UNARY) and len(node.inputs) == 1:
            return node.inputs[0]
        if not node.is_standard(*BINARY) or len(node.inputs) != 2:
            return None
        left, right = node.inputs
        if self.rank(right) in (0, 1):
            return left
        return right if self.rank(left) in (0, 1) and node.op != "Div" else None


def last_position_only(data: bytes, logits: str) -> bytes | None:
    """The model with logits of the last position only.

    Args:
        data: An ONNX file; `graph.read_graph` has accepted it.
        logits: Name of the output, of shape (batch, length, vocab).

    Returns:
        The changed file: logits are (batch, 1, vocab). None: its end is not recognised, or the
        exporter has done it already.
    """
    model = memoryview(data)
    try:
        graphs = inner(model, MODEL_GRAPH)
        if len(graphs) != 1 or opset(model) < GATHER_OPSET_MIN:
            return None
        graph = _Graph(graphs[0])
        found = graph.head(logits)
        if found is None or logits not in graph.outputs or graph.has(PREFIX):
            return None
        return _replaced(model, MODEL_GRAPH, _cut(graphs[0], *found))
    except ValueError:  # Malformed here; ONNX Runtime will say it better.
        return None


def _cut(body: memoryview, head: _Node, behind: list[str]) -> list[bytes | memoryview]:
    """The fields of the graph, with a Gather before ``head``."""
    parts: list[bytes | memoryview] = []
    for place, each in enumerate(fields(body)):
        name = ""
        if each.wire == BYTES and each.number in (GRAPH_OUTPUT, GRAPH_VALUE):
            name = text(each.body, VALUE_NAME)
        if place == head.place:
            parts.append(bytes_field(GRAPH_NODE, _gather(head.inputs[0])))
            parts.append(bytes_field(GRAPH_NODE, _reading(head.body, PREFIX)))
        elif name and name in behind:
            if each.number == GRAPH_OUTPUT:  # What else is known of shapes behind is dropped.
                parts.append(bytes_field(GRAPH_OUTPUT, _one_position(each.body)))
        else:
            parts.append(each.raw)
    parts.append(bytes_field(GRAPH_WEIGHT, _index()))
    return parts


def _gather(source: str) -> bytes:
    axis = bytes_field(ATTRIBUTE_NAME, b"axis") + number_field(ATTRIBUTE_INT, 1)
    axis += number_field(ATTRIBUTE_TYPE, ATTRIBUTE_IS_INT)
    return (
        bytes_field(NODE_INPUT, source.encode())
        + bytes_field(NODE_INPUT, f"{PREFIX}/index".encode())
        + bytes_field(NODE_OUTPUT, PREFIX.encode())
        + bytes_field(NODE_NAME, f"{PREFIX}/Gather".encode())
        + bytes_field(NODE_OP, b"Gather")
        + bytes_field(NODE_ATTRIBUTE, axis)
    )


def _index() -> bytes:
    """An int64 tensor [-1]: of rank 1, so that the axis stays."""
    return (
        number_field(TENSOR_DIMS, 1)
        + number_field(TENSOR_TYPE, INT64)
        + bytes_field(TENSOR_NAME, f"{PREFIX}/index".encode())
        + bytes_field(TENSOR_RAW, (-1).to_bytes(8, "little", signed=True))
    )


def _reading(node: memoryview, source: str) -> bytes:
    """A node with another first input."""
    parts: list[bytes | memoryview] = []
    first = True
    for each in fields(node):
        if first and each.number == NODE_INPUT and each.wire == BYTES:
            parts.append(bytes_field(NODE_INPUT, source.encode()))
            first = False
        else:
            parts.append(each.raw)
    return b"".join(parts)


def _one_position(value: memoryview) -> bytes:
    """A ValueInfo of (batch, length, vocab) as (batch, 1, vocab)."""
    [kind] = inner(value, VALUE_TYPE)
    [tensor] = inner(kind, TYPE_TENSOR)
    [shape] = inner(tensor, TENSOR_SHAPE)
    dims = inner(shape, SHAPE_DIM)
    if len(dims) != 3:
        raise ValueError(f"logits of rank {len(dims)}")
    kept = [bytes(dims[0]), number_field(DIM_VALUE, 1), bytes(dims[2])]
    made = [bytes_field(SHAPE_DIM, dim) for dim in kept]
    new_tensor = b"".join(_replaced_parts(tensor, TENSOR_SHAPE, made))
    new_kind = b"".join(_replaced_parts(kind, TYPE_TENSOR, [new_tensor]))
    return b"".join(_replaced_parts(value, VALUE_TYPE, [new_kind]))


def _replaced(message: memoryview, number: int, parts: list[bytes | memoryview]) -> bytes:
    """A message with the body of its one field of this number replaced: one copy of it all."""
    return b"".join(_replaced_parts(message, number, parts))


def _replaced_parts(
    message: memoryview, number: int, parts: Sequence[bytes | memoryview]
) -> Iterator[bytes | memoryview]:
    for each in fields(message):
        if each.number == number and each.wire == BYTES:
            yield from field_parts(number, parts)
        else:
            yield each.raw


def opset(model: memoryview) -> int:
    """Version of the standard operators; 0 where it is not said."""
    opsets = [each for each in inner(model, MODEL_OPSET) if text(each, OPSET_DOMAIN) in STANDARD]
    return max((max(numbers(each, OPSET_VERSION), default=0) for each in opsets), default=0)


def _texts(message: memoryview, number: int) -> tuple[str, ...]:
    return tuple(bytes(body).decode() for body in inner(message, number))


def _constant_rank(node: memoryview) -> int | None:
    for attribute in inner(node, NODE_ATTRIBUTE):
        name = text(attribute, ATTRIBUTE_NAME)
        if name == "value":
            tensors = inner(attribute, ATTRIBUTE_TENSOR)
            return len(numbers(tensors[-1], TENSOR_DIMS)) if tensors else None
        if name in CONSTANT_RANKS:
            return CONSTANT_RANKS[name]
    return None


def _read_by(node: memoryview, depth: int = 0) -> Iterator[str]:
    """Every name that a node reads, also from inside its subgraphs."""
    if depth > DEPTH_MAX:
        raise ValueError("nested too deep")
    yield from (name for name in _texts(node, NODE_INPUT) if name)
    for attribute in inner(node, NODE_ATTRIBUTE):
        below = inner(attribute, ATTRIBUTE_GRAPH) + inner(attribute, ATTRIBUTE_GRAPHS)
        for graph in below:
            yield from _texts_of_outputs(graph)
            for each in inner(graph, GRAPH_NODE):
                yield from _read_by(each, depth + 1)


def _texts_of_outputs(graph: memoryview) -> Iterator[str]:
    """Outputs of a subgraph: one may be a name of the graph around it, read as it is."""
    return (text(value, VALUE_NAME) for value in inner(graph, GRAPH_OUTPUT))
