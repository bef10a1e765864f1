"""The graph against its configuration: names, types and shapes of every tensor, before any run.

A graph that passes has the layout that the decoders are built on: ids in (and a mask, positions, a
count of logits where it wants them), one key and one value per layer in and out. What it does with
them decides its path (`wiring`).
"""

from collections.abc import Sequence
from dataclasses import replace

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.config import GROWING, SLAB, ModelFacts
from lockstep.workers.inference.graph import Graph, Port
from lockstep.workers.inference.kv_names import at as at  # Also for who asks for it here.
from lockstep.workers.inference.wiring import attention_nodes, why_not_slab

KV_DTYPES = ("float32", "float16")
LOGITS_TO_KEEP = ("num_logits_to_keep", "logits_to_keep")
ANY = -1
WINDOW = "local_window_size"  # Attributes of GroupQueryAttention.
WINDOW_BUFFER = "sliding_window_cache"  # Its buffers may be as small as the window, not smaller.
# Inputs of graphs that are something else, by how their names begin, and what to do about it.
FOREIGN = {
    "use_cache_branch": "a merged decoder with two graphs in one is not executed; export it with "
    "`optimum-cli export onnx --task text-generation-with-past`, or take a folder that has "
    "model.onnx",
    "inputs_embeds": "it takes embeddings, so it is one part of a model in several files",
    "per_layer_inputs": "it takes embeddings, so it is one part of a model in several files",
    "encoder_": "it belongs to an encoder; only decoders that stand alone are executed",
    "decoder_input_ids": "it belongs to an encoder; only decoders that stand alone are executed",
    "pixel_values": "it takes images",
    "past_conv": "it keeps states of convolutions, which are no keys and values",
    "past_ssm": "it keeps states of a state-space model, which are no keys and values",
    "past_recurrent": "it keeps recurrent states, which are no keys and values",
    "cache_position": "it is told where to write its cache; export it with dynamic shapes",
}


def refuse_foreign(graph: Graph, name: str) -> None:
    """Refuse graphs that are no decoder with its past, by the input that shows it.

    Raises:
        ModelRejected: with what to use instead, where there is something.
    """
    for port in graph.inputs:
        why = next((why for begin, why in FOREIGN.items() if port.name.startswith(begin)), "")
        if why:
            raise ModelRejected(f"{name}: input {port} is not supported: {why}")


def check_signature(graph: Graph, facts: ModelFacts) -> ModelFacts:
    """Compare every port of the graph with what ``facts`` promise.

    Returns:
        The facts with type, path and the inputs that the graph really has.

    Raises:
        ModelRejected: a port is missing, unknown, or of another type or shape; it is named.
    """
    name = facts.filename
    refuse_foreign(graph, name)
    have = {port.name: port for port in graph.inputs}
    keep = next((each for each in LOGITS_TO_KEEP if each in have), "")
    facts = replace(
        facts,
        attention_mask=facts.attention_mask if facts.attention_mask in have else "",
        position_ids=facts.position_ids if facts.position_ids in have else "",
        logits_to_keep=keep,
        keep_rank=len(have[keep].shape) if keep else 0,
    )
    facts = replace(facts, dtype=_check_kv(graph, facts))
    _check_feeds(have, facts)
    facts = replace(facts, last_logits=_check_logits(graph, facts))
    why = why_not_slab(graph, facts) or _narrow(have[facts.input_ids])
    return _windowed(graph, replace(facts, path=GROWING if why else SLAB, path_why=why))


def _check_kv(graph: Graph, facts: ModelFacts) -> str:
    """All ports are there, none besides, and keys and values fit. Their type."""
    name, layers = facts.filename, range(facts.layers)
    past = [at(form, n) for n in layers for form in (facts.past_key, facts.past_value)]
    present = [at(form, n) for n in layers for form in (facts.present_key, facts.present_value)]
    feeds = [facts.attention_mask, facts.position_ids, facts.logits_to_keep]
    named = [each for each in feeds if each]
    inputs = _named(graph.inputs, [facts.input_ids, *named, *past], name, "input")
    outputs = _named(graph.outputs, [facts.logits, *present], name, "output")
    dtype = inputs[past[0]].dtype
    if dtype not in KV_DTYPES:
        raise ModelRejected(f"{name}: {inputs[past[0]]}, expected one of {', '.join(KV_DTYPES)}")
    kv = (ANY, facts.kv_heads, ANY, facts.head_dim)
    ports = [*(inputs[tensor] for tensor in past), *(outputs[tensor] for tensor in present)]
    for port in ports:
        _fits(port, (dtype,), kv, name, "; all layers have to have keys and values of one size")
        _free(port, 2, name)
    return dtype


def _check_feeds(have: dict[str, Port], facts: ModelFacts) -> None:
    name = facts.filename
    for tensor in (facts.input_ids, facts.attention_mask, facts.position_ids):
        if tensor:
            _fits(have[tensor], ("int64",), (ANY, ANY), name)
            _free(have[tensor], 1, name)
    batch = have[facts.input_ids].shape[0]
    if isinstance(batch, int) and batch != 1:
        raise ModelRejected(f"{name}: {have[facts.input_ids]}: made for batches of {batch} only")
    if facts.logits_to_keep:
        shape = (1,) if facts.keep_rank else ()
        _fits(have[facts.logits_to_keep], ("int64",), shape, name)


def _check_logits(graph: Graph, facts: ModelFacts) -> bool:
    """Whether they are of the last position only."""
    port = next(port for port in graph.outputs if port.name == facts.logits)
    _fits(port, KV_DTYPES, (ANY, ANY, facts.vocab), facts.filename)
    if port.shape[1] == 1 or facts.logits_to_keep:
        return True
    _free(port, 1, facts.filename)
    return False


def _narrow(ids: Port) -> str:
    return f"{ids}: made for batches of 1" if ids.shape[0] == 1 else ""


def _windowed(graph: Graph, facts: ModelFacts) -> ModelFacts:
    """Sliding windows: applied by the attention operator, or else there is no more context.

    Exporters write graphs without their window, for a runtime that gives up old keys by itself; on
    such a graph the model is another one as soon as there are more tokens than the window has.
    """
    nodes = attention_nodes(graph)
    applied = max((node.numbers.get(WINDOW, 0) for node in nodes), default=0)
    if applied > 0:
        small = any(node.numbers.get(WINDOW_BUFFER) for node in nodes)
        return replace(facts, tokens_min=max(applied, facts.tokens_min)) if small else facts
    if not nodes or not 2 <= facts.window < facts.context:
        return facts
    why = f"the configuration has a window of {facts.window} tokens, which the graph does not apply"
    return replace(facts, context=facts.window, context_why=why)


def _named(ports: Sequence[Port], expected: list[str], name: str, what: str) -> dict[str, Port]:
    found = {port.name: port for port in ports}
    missing = [tensor for tensor in expected if tensor not in found]
    if missing:
        have = ", ".join(sorted(found))
        raise ModelRejected(f"{name}: no {what} {missing[0]!r}; it has {have:.400}")
    extra = sorted(set(found) - set(expected))
    if extra:
        raise ModelRejected(f"{name}: {what} {found[extra[0]]} is not supported")
    if len(found) != len(ports):
        raise ModelRejected(f"{name}: two {what}s have one name")
    return found


def _free(port: Port, index: int, name: str) -> None:
    """Refuse a graph that was exported for one length."""
    if isinstance(port.shape[index], int):
        raise ModelRejected(
            f"{name}: {port}: dimension {index} is a length and has to be free; export it with "
            f"dynamic shapes"
        )


def _fits(
    port: Port, dtypes: Sequence[str], shape: Sequence[int], name: str, why: str = ""
) -> None:
    """``shape`` has `ANY` where anything goes; a dimension that the graph leaves free fits too."""
    same = len(port.shape) == len(shape) and all(
        want == ANY or isinstance(have, str) or have == want
        for have, want in zip(port.shape, shape, strict=True)
    )
    if port.dtype not in dtypes or not same:
        wanted = ", ".join("any" if size == ANY else str(size) for size in shape)
        raise ModelRejected(f"{name}: {port}, expected {' or '.join(dtypes)}[{wanted}]{why}")
