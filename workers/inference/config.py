"""What a folder's configuration says of its graph, checked and typed; genai_config.json read.

Everything in it comes with the model, so each value is checked for type and range before it sizes
a buffer or names a tensor.
"""

import json
from dataclasses import dataclass
from typing import Any

from lockstep.engine.errors import ModelRejected
from lockstep.engine.fleet import TOKENS_MAX_LEAST

CONFIG = "genai_config.json"
JSON_BYTES_MAX = 64 << 20  # tokenizer_config.json of large vocabularies reaches megabytes.
LAYERS_MAX = 1024
HEADS_MAX = 1024
HEAD_DIM_MAX = 4096
VOCAB_MAX = 1 << 22
CONTEXT_MAX = 1 << 24
POSITIONS = "position_ids"  # What this input is called where nobody says otherwise.
GENAI, HUGGING_FACE = "onnxruntime-genai", "hugging face"  # Layouts of a folder.
SLAB, GROWING = "fixed slab", "growing"  # Paths that a graph is executed on.


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the decoder needs to know of a model.

    Attributes:
        kind: Architecture as the exporter names it, for people.
        filename: The ONNX file in the folder.
        layers: Pairs of key and value tensors.
        kv_heads: Heads of a key or value tensor.
        head_dim: Last dimension of a key or value tensor.
        vocab: Logits per position.
        context: Positions that the model was made for.
        eos: Token ids that end a sequence, ascending.
        bos: Token id that begins one, for templates; nothing is put before a prompt by itself.
        dtype: Of keys and values, "float32" or "float16"; empty until the graph was read.
        input_ids, attention_mask, logits: Tensor names; without a mask its name is empty.
        past_key, past_value, present_key, present_value: Tensor names with ``%d`` for the layer.
        position_ids: Tensor name, empty where the graph has no such input.
        logits_to_keep: Likewise: how many positions the graph makes logits of.
        keep_rank: Dimensions of ``logits_to_keep``, 0 or 1.
        last_logits: Logits are of the last position only, whatever is fed.
        layout: Of the folder, `GENAI` or `HUGGING_FACE`.
        path: How it is executed, `SLAB` or `GROWING`; empty until the graph was read.
        path_why: Why not on the slab; empty on the slab.
        eos_from: Which file says ``eos``.
        window: Tokens that a layer looks back at, by the configuration; 0: all.
        tokens_min: Least tokens of a slot: what the attention wants its buffers to have room for.
        context_why: Why ``context`` is less than the model was made for; empty: it is not.
    """

    kind: str
    filename: str
    layers: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    eos: tuple[int, ...]
    bos: int | None
    dtype: str
    input_ids: str
    attention_mask: str
    logits: str
    past_key: str
    past_value: str
    present_key: str
    present_value: str
    position_ids: str = ""
    logits_to_keep: str = ""
    keep_rank: int = 0
    last_logits: bool = False
    layout: str = GENAI
    path: str = ""
    path_why: str = ""
    eos_from: str = CONFIG
    window: int = 0
    tokens_min: int = TOKENS_MAX_LEAST
    context_why: str = ""


def read_json(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object of the folder.

    Raises:
        ModelRejected: too large, malformed, or not an object; the place is named.
    """
    if len(data) > JSON_BYTES_MAX:
        raise ModelRejected(f"{name}: {len(data)} bytes, at most {JSON_BYTES_MAX}")
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ModelRejected(f"{name}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelRejected(f"{name}: expected a JSON object, found {type(value).__name__}")
    return value


class Part:
    """One object of a configuration; knows its file and its path for messages."""

    def __init__(self, value: dict[str, Any], file: str, path: str = "") -> None:
        self.value = value
        self.file = file
        self.path = path

    def refuse(self, key: str, expected: str) -> ModelRejected:
        found = self.value.get(key)
        return ModelRejected(f"{self.file}: {self.path}{key} is {found!r:.80}, expected {expected}")

    def part(self, key: str) -> "Part":
        value = self.value.get(key)
        if not isinstance(value, dict):
            raise self.refuse(key, "an object")
        return Part(value, self.file, f"{self.path}{key}.")

    def number(self, key: str, low: int, high: int) -> int:
        value = self.value.get(key)
        if type(value) is not int or not low <= value <= high:
            raise self.refuse(key, f"{low} to {high}")
        return value

    def name(self, key: str, *, per_layer: bool = False) -> str:
        value = self.value.get(key)
        if not isinstance(value, str) or not value or (per_layer and value.count("%d") != 1):
            raise self.refuse(key, "a name with one %d" if per_layer else "a name")
        return value

    def token_ids(self, key: str, vocab: int) -> tuple[int, ...]:
        """One id, a list of them, or nothing."""
        value = self.value.get(key)
        found = [] if value is None else value if isinstance(value, list) else [value]
        if any(type(item) is not int or not 0 <= item < vocab for item in found):
            raise self.refuse(key, f"ids of 0 to {vocab - 1}")
        return tuple(sorted(set(found)))


def read_config(data: bytes) -> ModelFacts:
    """The facts of genai_config.json, ``dtype`` still empty.

    Raises:
        ModelRejected: a field is missing, of the wrong type or out of range.
    """
    model = Part(read_json(data, CONFIG), CONFIG).part("model")
    decoder = model.part("decoder")
    inputs, outputs = decoder.part("inputs"), decoder.part("outputs")
    vocab = model.number("vocab_size", 2, VOCAB_MAX)
    bos = model.token_ids("bos_token_id", vocab)
    window = decoder.part("sliding_window") if decoder.value.get("sliding_window") else None
    kind = model.value.get("type")
    return ModelFacts(
        kind=kind if isinstance(kind, str) else "unknown",
        filename=decoder.name("filename"),
        layers=decoder.number("num_hidden_layers", 1, LAYERS_MAX),
        kv_heads=decoder.number("num_key_value_heads", 1, HEADS_MAX),
        head_dim=decoder.number("head_size", 1, HEAD_DIM_MAX),
        vocab=vocab,
        context=model.number("context_length", 2, CONTEXT_MAX),
        eos=model.token_ids("eos_token_id", vocab),
        bos=bos[0] if bos else None,
        dtype="",
        input_ids=inputs.name("input_ids"),
        attention_mask=inputs.name("attention_mask"),
        logits=outputs.name("logits"),
        past_key=inputs.name("past_key_names", per_layer=True),
        past_value=inputs.name("past_value_names", per_layer=True),
        present_key=outputs.name("present_key_names", per_layer=True),
        present_value=outputs.name("present_value_names", per_layer=True),
        position_ids=inputs.name("position_ids") if "position_ids" in inputs.value else POSITIONS,
        window=window.number("window_size", 1, CONTEXT_MAX) if window else 0,
    )
