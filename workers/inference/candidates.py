"""Candidates: the largest logits cut out where they are computed.

A step of 64 rows over a vocabulary of 150,000 makes 38 MB of logits, which on a device would cross
to the host in every step. A TopK behind the logits leaves ``count`` of them, largest first, ties by
token id, as the sampler orders them; the first one is the maximum that the sampler subtracts.

Greedy tokens and top-k up to ``count`` follow from candidates alone. Temperature over the whole
vocabulary, top-p and min-p do not in general: whoever uses them needs the logits, which stay an
output of the graph. One number more says of each row whether all its logits are finite: it is the
sum of ``l - l``, which is 0, or NaN if one of them is not.
"""

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
from lockstep.workers.inference.surgery import (
    ATTRIBUTE_INT,
    ATTRIBUTE_IS_INT,
    ATTRIBUTE_NAME,
    ATTRIBUTE_TYPE,
    DIM_VALUE,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    GRAPH_WEIGHT,
    INT64,
    MODEL_GRAPH,
    NODE_ATTRIBUTE,
    NODE_INPUT,
    NODE_NAME,
    NODE_OP,
    NODE_OUTPUT,
    SHAPE_DIM,
    TENSOR_DIMS,
    TENSOR_ELEMENT,
    TENSOR_NAME,
    TENSOR_RAW,
    TENSOR_SHAPE,
    TENSOR_TYPE,
    TYPE_TENSOR,
    VALUE_NAME,
    VALUE_TYPE,
    opset,
)

VALUES, IDS = "lockstep/candidates/logits", "lockstep/candidates/ids"
SOUND = "lockstep/candidates/sound"
COUNT, ZEROS, AXES = (f"lockstep/candidates/{name}" for name in ("count", "zeros", "axes"))
OPSET_MIN = 13  # TopK orders equals since 11, ReduceSum has its axes as an input since 13.


def with_candidates(data: bytes, logits: str, count: int) -> bytes | None:
    """The model with `VALUES` and `IDS`, (batch, positions, count), and `SOUND`, with 1 for count.

    Args:
        data: An ONNX file; `graph.read_graph` has accepted it.
        logits: Name of the output, of shape (batch, positions, vocab).
        count: Candidates, from 1 to the vocabulary's size.

    Returns:
        The changed file; None: it has no such output, names of ours, or operators too old.
    """
    model = memoryview(data)
    try:
        graphs = inner(model, MODEL_GRAPH)
        if len(graphs) != 1 or opset(model) < OPSET_MIN:
            return None
        ports = {text(port, VALUE_NAME): port for port in inner(graphs[0], GRAPH_OUTPUT)}
        if logits not in ports or VALUES in ports:
            return None
        axis = _attribute("axis", -1)
        nodes = [
            _node("TopK", (logits, COUNT), (VALUES, IDS), axis),
            _node("Sub", (logits, logits), (ZEROS,)),
            _node("ReduceSum", (ZEROS, AXES), (SOUND,)),
        ]
        added = [
            *(bytes_field(GRAPH_NODE, node) for node in nodes),
            bytes_field(GRAPH_WEIGHT, _number(COUNT, count)),
            bytes_field(GRAPH_WEIGHT, _number(AXES, -1)),
            *_ports(ports[logits], count),
        ]
    except ValueError:  # Malformed here; ONNX Runtime will say it better.
        return None
    parts: list[bytes | memoryview] = []
    for each in fields(model):
        if each.number == MODEL_GRAPH and each.wire == BYTES:
            parts.extend(field_parts(MODEL_GRAPH, [each.body, *added]))
        else:
            parts.append(each.raw)
    return b"".join(parts)


def _node(
    op: str, inputs: tuple[str, ...], outputs: tuple[str, ...], attribute: bytes = b""
) -> bytes:
    names = [(NODE_INPUT, name) for name in inputs] + [(NODE_OUTPUT, name) for name in outputs]
    names += [(NODE_NAME, f"lockstep/candidates/{op}"), (NODE_OP, op)]
    return b"".join(bytes_field(number, name.encode()) for number, name in names) + attribute


def _attribute(name: str, value: int) -> bytes:
    fields_ = (
        bytes_field(ATTRIBUTE_NAME, name.encode())
        + number_field(ATTRIBUTE_INT, value)
        + number_field(ATTRIBUTE_TYPE, ATTRIBUTE_IS_INT)
    )
    return bytes_field(NODE_ATTRIBUTE, fields_)


def _number(name: str, value: int) -> bytes:
    return (
        number_field(TENSOR_DIMS, 1)
        + number_field(TENSOR_TYPE, INT64)
        + bytes_field(TENSOR_NAME, name.encode())
        + bytes_field(TENSOR_RAW, value.to_bytes(8, "little", signed=True))
    )


def _ports(logits: memoryview, count: int) -> list[bytes]:
    """The outputs; their type is that of the logits, of ids int64. Raises ValueError: no tensor."""
    [kind] = inner(logits, VALUE_TYPE)
    [tensor] = inner(kind, TYPE_TENSOR)
    [shape] = inner(tensor, TENSOR_SHAPE)
    [element] = numbers(tensor, TENSOR_ELEMENT)
    found = []
    before = inner(shape, SHAPE_DIM)[:-1]
    for name, its, last in ((VALUES, element, count), (IDS, INT64, count), (SOUND, element, 1)):
        dims: list[bytes | memoryview] = [*before, number_field(DIM_VALUE, last)]
        new_shape = bytes_field(TENSOR_SHAPE, *(bytes_field(SHAPE_DIM, dim) for dim in dims))
        new_tensor = bytes_field(TYPE_TENSOR, number_field(TENSOR_ELEMENT, its), new_shape)
        value = bytes_field(VALUE_NAME, name.encode()) + bytes_field(VALUE_TYPE, new_tensor)
        found.append(bytes_field(GRAPH_OUTPUT, value))
    return found
