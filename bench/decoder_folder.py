"""Decoder folder: a built graph in files, as the onnxruntime-genai builder lays them out.

Other runtimes load the same folder. Same shape and same weights give the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from onnx.external_data_helper import set_external_data

from lockstep.bench.decoder_graph import Weights, build
from lockstep.bench.decoder_shape import DecoderShape

MODEL_NAME = "model.onnx"
DATA_NAME = "model.onnx.data"
EXTERNAL_BYTES_MIN = 16 << 20  # Weights of this size or more go to DATA_NAME, smaller inside.
EXTERNAL_ALIGN_BYTES = 4096  # Offsets in DATA_NAME, so that a tensor can be mapped.


class SpecialTokens(NamedTuple):
    """Token ids that genai_config.json names: begin, end, padding."""

    bos: int
    eos: int
    pad: int


def write_folder(
    folder: Path,
    shape: DecoderShape,
    weights: Weights,
    special: SpecialTokens,
    external_bytes_min: int = EXTERNAL_BYTES_MIN,
) -> list[Path]:
    """Write model.onnx, model.onnx.data when the weights are big, and genai_config.json.

    Files of these names are replaced; others (a tokenizer) are left alone.

    Args:
        folder: Made if it is not there.
        shape: The sizes.
        weights: As for `build`.
        special: Token ids for genai_config.json.
        external_bytes_min: Weights of this many bytes in all, or more, go to model.onnx.data.

    Returns:
        The paths written, model.onnx first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model_path, data_path = folder / MODEL_NAME, folder / DATA_NAME
    data_path.unlink(missing_ok=True)
    model = build(shape, weights)
    big = sum(len(tensor.raw_data) for tensor in model.graph.initializer) >= external_bytes_min
    if big:
        _move_weights(model, data_path)
    model_path.write_bytes(model.SerializeToString(deterministic=True))
    config_path = folder / "genai_config.json"
    config_path.write_text(json.dumps(genai_config(shape, special), indent=4) + "\n", "utf-8")
    return [model_path, *([data_path] if big else []), config_path]


def genai_config(shape: DecoderShape, special: SpecialTokens) -> dict[str, Any]:
    """Describe the model as onnxruntime-genai's builder does (genai_config.json)."""
    kv = ("key", "value")
    inputs = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": MODEL_NAME,
        "head_size": shape.head_dim,
        "hidden_size": shape.hidden,
        "inputs": inputs | {f"past_{x}_names": f"past_key_values.%d.{x}" for x in kv},
        "outputs": {"logits": "logits"} | {f"present_{x}_names": f"present.%d.{x}" for x in kv},
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
    }
    model: dict[str, Any] = {"type": "llama", "decoder": decoder, "vocab_size": shape.vocab}
    model |= {f"{name}_token_id": token for name, token in special._asdict().items()}
    model["context_length"] = shape.context_tokens
    search: dict[str, Any] = {"do_sample": False, "max_length": shape.context_tokens, "top_k": 50}
    search |= {"past_present_share_buffer": True, "early_stopping": True, "min_length": 0}
    search |= {"num_beams": 1, "num_return_sequences": 1, "no_repeat_ngram_size": 0}
    search |= {f"{name}_penalty": 1.0 for name in ("length", "repetition")}
    search |= {"diversity_penalty": 0.0, "temperature": 1.0, "top_p": 1.0}
    return {"model": dict(sorted(model.items())), "search": dict(sorted(search.items()))}


def _move_weights(model: onnx.ModelProto, path: Path) -> None:
    """Move the initialisers of ``model`` into the file ``path``, in graph order."""
    with path.open("wb") as file:
        for tensor in model.graph.initializer:
            file.write(bytes(-file.tell() % EXTERNAL_ALIGN_BYTES))
            length = len(tensor.raw_data)
            set_external_data(tensor, path.name, offset=file.tell(), length=length)
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
