"""Candidates: the largest logits cut out where they are computed.

A step of 64 rows over a vocabulary of 150,000 makes 38 MB of logits, which on a device would cross
to the host in every step. A TopK behind the logits leaves ``count`` of them, largest first, ties by
token id, as the sampler orders them; the first one is the maximum that the sampler subtracts.

Greedy tokens, top-k up to ``count`` and logprobs relative to the maximum follow from candidates
alone. Temperature over the whole vocabulary, top-p and min-p do not in general: whoever uses them
needs the logits, which stay an output of the graph.
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
COUNT = "lockstep/candidates/count"
TOPK_OPSET_MIN = 11  # Sorted, and the lower index first among equals, since then.


def with_candidates(data: bytes, logits: str, count: int) -> bytes | None:
    """The model with two more outputs, `VALUES` and `IDS`, both (batch, positions, count).

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
        if len(graphs) != 1 or opset(model) < TOPK_OPSET_MIN:
            return None
        ports = {text(port, VALUE_NAME): port for port in inner(graphs[0], GRAPH_OUTPUT)}
        if logits not in ports or VALUES in ports or IDS in ports:
            return None
        added = [
            bytes_field(GRAPH_NODE, _topk(logits)),
            bytes_field(GRAPH_WEIGHT, _number(count)),
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


def _topk(logits: str) -> bytes:
    names = ((NODE_INPUT, logits), (NODE_INPUT, COUNT), (NODE_OUTPUT, VALUES), (NODE_OUTPUT, IDS),
             (NODE_NAME, "lockstep/candidates/TopK"), (NODE_OP, "TopK"))  # fmt: skip
    axis = (
        bytes_field(ATTRIBUTE_NAME, b"axis")
        + number_field(ATTRIBUTE_INT, -1)
        + number_field(ATTRIBUTE_TYPE, ATTRIBUTE_IS_INT)
    )
    node = b"".join(bytes_field(number, name.encode()) for number, name in names)
    return node + bytes_field(NODE_ATTRIBUTE, axis)


def _number(count: int) -> bytes:
    return (
        number_field(TENSOR_DIMS, 1)
        + number_field(TENSOR_TYPE, INT64)
        + bytes_field(TENSOR_NAME, COUNT.encode())
        + bytes_field(TENSOR_RAW, count.to_bytes(8, "little"))
    )


def _ports(logits: memoryview, count: int) -> list[bytes]:
    """Both outputs, with the type of the logits and int64. Raises ValueError: no such tensor."""
    [kind] = inner(logits, VALUE_TYPE)
    [tensor] = inner(kind, TYPE_TENSOR)
    [shape] = inner(tensor, TENSOR_SHAPE)
    [element] = numbers(tensor, TENSOR_ELEMENT)
    dims: list[bytes | memoryview] = [*inner(shape, SHAPE_DIM)[:-1], number_field(DIM_VALUE, count)]
    new_shape = bytes_field(TENSOR_SHAPE, *(bytes_field(SHAPE_DIM, dim) for dim in dims))
    found = []
    for name, its in ((VALUES, element), (IDS, INT64)):
        new_tensor = bytes_field(TYPE_TENSOR, number_field(TENSOR_ELEMENT, its), new_shape)
        value = bytes_field(VALUE_NAME, name.encode()) + bytes_field(VALUE_TYPE, new_tensor)
        found.append(bytes_field(GRAPH_OUTPUT, value))
    return found
