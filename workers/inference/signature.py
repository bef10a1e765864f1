"""The graph against its configuration: names, types and shapes of every tensor, before any run.

A graph that passes has the layout the decoder is built on: ids and a mask in, one key and one
value per layer in and out, attention by `GroupQueryAttention`, so that past and present can be one
buffer.
"""

from collections.abc import Sequence

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.config import ModelFacts
from lockstep.workers.inference.graph import Graph, Port

ATTENTION = "GroupQueryAttention"
KV_DTYPES = ("float32", "float16")


def check_signature(graph: Graph, facts: ModelFacts) -> str:
    """Compare every port of the graph with what ``facts`` promise.

    Returns:
        Type of keys and values.

    Raises:
        ModelRejected: a port is missing, unknown, or of another type or shape; it is named.
    """
    name = facts.filename
    if ATTENTION not in graph.operators:
        raise ModelRejected(
            f"{name}: no {ATTENTION} in it, so past and present cannot share one buffer; export "
            f"it with onnxruntime-genai's model builder"
        )
    ids, mask = facts.input_ids, facts.attention_mask
    kv = (-1, facts.kv_heads, -1, facts.head_dim)
    layers = range(facts.layers)
    past = [at(form, layer) for layer in layers for form in (facts.past_key, facts.past_value)]
    present = [
        at(form, layer) for layer in layers for form in (facts.present_key, facts.present_value)
    ]
    inputs = _named(graph.inputs, [ids, mask, *past], name, "input")
    outputs = _named(graph.outputs, [facts.logits, *present], name, "output")
    dtype = inputs[past[0]].dtype
    if dtype not in KV_DTYPES:
        raise ModelRejected(f"{name}: {inputs[past[0]]}, expected one of {', '.join(KV_DTYPES)}")
    for tensor in (ids, mask):
        _fits(inputs[tensor], ("int64",), (-1, -1), name)
    for tensor in past:
        _fits(inputs[tensor], (dtype,), kv, name)
    for tensor in present:
        _fits(outputs[tensor], (dtype,), kv, name)
    _fits(outputs[facts.logits], KV_DTYPES, (-1, -1, facts.vocab), name)
    return dtype


def at(form: str, layer: int) -> str:
    """The tensor name of a layer. The form comes with the model: no formatting operator."""
    return form.replace("%d", str(layer))


def _named(ports: Sequence[Port], expected: list[str], name: str, what: str) -> dict[str, Port]:
    found = {port.name: port for port in ports}
    missing = [tensor for tensor in expected if tensor not in found]
    if missing:
        have = ", ".join(sorted(found))
        raise ModelRejected(f"{name}: no {what} {missing[0]!r}; it has {have:.400}")
    extra = sorted(set(found) - set(expected))
    if extra:
        raise ModelRejected(f"{name}: {what} {found[extra[0]]} is not supported")
    return found


def _fits(port: Port, dtypes: Sequence[str], shape: Sequence[int], name: str) -> None:
    """``shape`` has -1 where anything goes; a dimension that the graph leaves free fits too."""
    same = len(port.shape) == len(shape) and all(
        want == -1 or isinstance(have, str) or have == want
        for have, want in zip(port.shape, shape, strict=True)
    )
    if port.dtype not in dtypes or not same:
        wanted = ", ".join("any" if size == -1 else str(size) for size in shape)
        raise ModelRejected(f"{name}: {port}, expected {' or '.join(dtypes)}[{wanted}]")
