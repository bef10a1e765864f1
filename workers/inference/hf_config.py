"""config.json and generation_config.json: what Hugging Face's libraries wrote of a model.

The graph is the truth about shapes; these add what it cannot say: how many positions the model was
made for, which tokens end a sequence, and sizes that the graph leaves free. What both say has to
be equal: config.json of another model beside a graph is a mistake that must not run.
"""

from collections.abc import Sequence
from typing import Any

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.config import (
    CONTEXT_MAX,
    HEAD_DIM_MAX,
    HEADS_MAX,
    HUGGING_FACE,
    LAYERS_MAX,
    VOCAB_MAX,
    ModelFacts,
    Part,
    read_json,
)
from lockstep.workers.inference.graph import Graph
from lockstep.workers.inference.kv_names import at, find_kv
from lockstep.workers.inference.layout import HF_CONFIG
from lockstep.workers.inference.signature import refuse_foreign

GENERATION_CONFIG = "generation_config.json"
# Where the sizes of the text model lie in the configuration of a larger one.
TEXT_PARTS = ("text_config", "language_config", "llm_config")
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len",
                "seq_length")  # fmt: skip
KV_HEADS_KEYS = ("num_key_value_heads", "num_kv_heads", "num_attention_heads", "n_head")
LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers")
LOGITS = "logits"


def read_hf_config(
    config: bytes, generation: bytes | None, graph: Graph, filename: str
) -> ModelFacts:
    """The facts of a folder in Hugging Face's layout, ``dtype`` and path still empty.

    Args:
        config: config.json.
        generation: generation_config.json, where there is one.
        graph: Of the ONNX file.
        filename: Of the ONNX file.

    Raises:
        ModelRejected: a field is missing or out of range, or it is not what the graph says.
    """
    refuse_foreign(graph, filename)
    whole = read_json(config, HF_CONFIG)
    top = Part(whole, HF_CONFIG)
    text = next((top.part(key) for key in TEXT_PARTS if isinstance(whole.get(key), dict)), top)
    names = find_kv(graph, filename)
    shape = _shape(graph.inputs, at(names.past_key, 0))
    vocab = _size(_shape(graph.outputs, LOGITS), -1, text, ("vocab_size",), VOCAB_MAX, strict=True)
    _layers(text, names.layers, filename)
    eos, bos, eos_from = _special(top, text, generation, vocab)
    kind = whole.get("model_type")
    return ModelFacts(
        kind=kind if isinstance(kind, str) else "unknown",
        filename=filename,
        layers=names.layers,
        kv_heads=_size(shape, 1, text, KV_HEADS_KEYS, HEADS_MAX),
        head_dim=_head_dim(shape, text),
        vocab=vocab,
        context=_first(text, CONTEXT_KEYS, CONTEXT_MAX),
        eos=eos,
        bos=bos,
        dtype="",
        input_ids="input_ids",
        attention_mask="attention_mask",
        logits=LOGITS,
        past_key=names.past_key,
        past_value=names.past_value,
        present_key=names.present_key,
        present_value=names.present_value,
        position_ids="position_ids",
        layout=HUGGING_FACE,
        eos_from=eos_from,
        window=_window(text),
    )


def _shape(ports: Sequence[Any], name: str) -> tuple[int | str, ...]:
    found: tuple[int | str, ...] = next((port.shape for port in ports if port.name == name), ())
    return found


def _first(part: Part, keys: Sequence[str], high: int) -> int:
    """The first of these keys that is there."""
    key = next((key for key in keys if part.value.get(key) is not None), keys[0])
    return part.number(key, 1, high)


def _size(
    shape: Sequence[int | str],
    index: int,
    part: Part,
    keys: Sequence[str],
    high: int,
    *,
    strict: bool = False,
) -> int:
    """A dimension of the graph, or of the configuration where the graph leaves it free.

    ``strict``: what the configuration says of it has to be the same.
    """
    found = shape[index] if shape else ""
    if not isinstance(found, int):
        return _first(part, keys, high)
    if not 1 <= found <= high:
        raise ModelRejected(f"{part.file}: the graph has a dimension of {found}, at most {high}")
    said = part.value.get(keys[0])
    if strict and said is not None and said != found:
        raise part.refuse(keys[0], f"{found}, as in the graph")
    return found


def _head_dim(shape: Sequence[int | str], part: Part) -> int:
    if part.value.get("head_dim") is not None or (shape and isinstance(shape[3], int)):
        return _size(shape, 3, part, ("head_dim",), HEAD_DIM_MAX)
    hidden = _first(part, ("hidden_size", "n_embd"), HEAD_DIM_MAX * HEADS_MAX)
    return hidden // _first(part, ("num_attention_heads", "n_head"), HEADS_MAX)


def _layers(part: Part, layers: int, filename: str) -> None:
    """Fewer layers with keys than layers are possible: they share; more are not."""
    said = _first(part, LAYER_KEYS, LAYERS_MAX)
    if layers > said:
        raise ModelRejected(
            f"{filename}: keys of {layers} layers, {part.file} says that there are {said}"
        )


def _window(part: Part) -> int:
    """Tokens that some layers look back at; 0: all look back at everything."""
    types = part.value.get("layer_types")
    off = part.value.get("use_sliding_window") is False
    off |= isinstance(types, list) and "sliding_attention" not in types
    if off or part.value.get("sliding_window") is None:
        return 0
    return part.number("sliding_window", 1, CONTEXT_MAX)


def _special(
    top: Part, text: Part, generation: bytes | None, vocab: int
) -> tuple[tuple[int, ...], int | None, str]:
    """Ends of a sequence, its begin, and where the ends are from: the first file that has any."""
    parts = [top, text]
    if generation is not None:
        parts.insert(0, Part(read_json(generation, GENERATION_CONFIG), GENERATION_CONFIG))
    ends = next((part for part in parts if part.value.get("eos_token_id") is not None), None)
    begins = next((part for part in parts if part.value.get("bos_token_id") is not None), None)
    bos = begins.token_ids("bos_token_id", vocab) if begins else ()
    if ends is None:
        return (), bos[0] if bos else None, ""
    return ends.token_ids("eos_token_id", vocab), bos[0] if bos else None, ends.file
