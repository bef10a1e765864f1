"""Folders with graphs that are no decoders, built with the onnx package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ("[UNK]", "the", "cat", "sat", "on", "a", "mat", "dog")
WIDTH = 4


def save(folder: Path, graph: Any, name: str = "model.onnx") -> Path:
    """A graph as a checked file in a folder."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return folder


def arithmetic(folder: Path) -> Path:
    """``sum = a + b`` and ``root = sqrt(a)``, float32 of shape (n, 2)."""
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sqrt", ["a"], ["root"]),
    ]
    inputs = [info(name, TensorProto.FLOAT, ["n", 2]) for name in "ab"]
    outputs = [info(name, TensorProto.FLOAT, ["n", 2]) for name in ("sum", "root")]
    return save(folder, helper.make_graph(nodes, "arithmetic", inputs, outputs))


def identity(folder: Path, element: int) -> Path:
    """``y = x`` of any element type, any shape of two dimensions."""
    info = helper.make_tensor_value_info
    node = helper.make_node("Identity", ["x"], ["y"])
    inputs, outputs = [info("x", element, ["r", "c"])], [info("y", element, ["r", "c"])]
    return save(folder, helper.make_graph([node], "identity", inputs, outputs))


def table() -> np.ndarray[Any, Any]:
    """The vector of each word."""
    return np.arange(len(WORDS) * WIDTH, dtype=np.float32).reshape(-1, WIDTH) / 7 - 1


def embedding(
    folder: Path, mode: str = "pooling_mode_mean_tokens", unit: bool = True, tokens_max: int = 8
) -> Path:
    """A text model in sentence-transformers' layout: each token has the vector of its word."""
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["words", "column"], ["last_hidden_state"]),
    ]
    shape = ["batch_size", "sequence_length"]
    inputs = [info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    outputs = [info("last_hidden_state", TensorProto.FLOAT, [*shape, WIDTH])]
    weights = [
        numpy_helper.from_array(table(), "table"),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
    ]
    save(folder, helper.make_graph(nodes, "words", inputs, outputs, weights), "onnx/model.onnx")
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": tokens_max}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": WIDTH, mode: True})
    )
    kinds = ["Transformer", "Pooling", *(["Normalize"] if unit else [])]
    modules = [{"idx": n, "type": f"sentence_transformers.models.{k}"} for n, k in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder
