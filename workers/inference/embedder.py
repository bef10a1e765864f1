"""Embeddings: texts to vectors, by a text model's own tokenizer and pooling.

Each text runs alone, so its vector does not depend on what it was asked for together with. Pooling
is sentence-transformers' (1_Pooling/config.json): the mean over tokens, or the first token; a
``Normalize`` module gives it length 1. Graphs that pool by themselves say so with an output named
``sentence_embedding``. Everything after the graph is float64 in a fixed order of operations (sums
over tokens one after the other; square roots and divisions are IEEE), rounded once to float32.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lockstep.engine.errors import ModelRejected, RequestRejected
from lockstep.workers.inference.tensor_folder import (
    CONFIG,
    MODULES,
    POOLING,
    SENTENCE_CONFIG,
    TOKENIZER,
    TensorFolder,
)
from lockstep.workers.inference.tensors import Array

POOLED = "sentence_embedding"
STATES = ("last_hidden_state", "token_embeddings")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}


class Embedder:
    """What turns texts into inputs of a graph, and its outputs into vectors."""

    def __init__(self, folder: TensorFolder) -> None:
        """Read tokenizer and pooling.

        Raises:
            ModelRejected: the folder is no text model, or pools in a way that is not known.
        """
        ports = {port.name: port for port in folder.graph.inputs}
        strange = [name for name in ports if name not in INPUTS]
        if "input_ids" not in ports or strange:
            raise ModelRejected(f"inputs {', '.join(ports)}, expected some of {', '.join(INPUTS)}")
        outputs = [port.name for port in folder.graph.outputs]
        self._inputs = tuple(ports)
        self.output = next((name for name in (POOLED, *STATES) if name in outputs), "")
        if not self.output:
            raise ModelRejected(f"outputs {', '.join(outputs)}, expected {POOLED} or {STATES[0]}")
        self._mode = "" if self.output == POOLED else _mode(folder)
        self._unit = _normalizes(folder)
        self._tokenizer = _tokenizer(folder)
        self.tokens_max = _tokens_max(folder)

    def inputs(self, text: str) -> dict[str, Array]:
        """A text as inputs of shape (1, tokens), int64.

        Raises:
            RequestRejected: it cannot be encoded, or has too many tokens; it is never cut.
        """
        try:
            ids = self._tokenizer.encode(text).ids
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # A panic in Rust is not an Exception.
            raise RequestRejected(f"input: cannot be encoded: {error!s:.200}") from None
        if not 1 <= len(ids) <= self.tokens_max:
            raise RequestRejected(f"input: {len(ids)} tokens, expected 1 to {self.tokens_max}")
        of = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": [0] * len(ids)}
        return {name: np.array([of[name]], np.int64) for name in self._inputs}

    def vector(self, output: Array, dimensions: int = 0) -> Array:
        """The vector of a text, float32.

        Args:
            output: `output` of the graph: (1, width), or (1, tokens, width) to be pooled.
            dimensions: Leading ones to keep (before normalising); 0: all.

        Raises:
            RequestRejected: it has fewer dimensions.
        """
        states: Array = output[0].astype(np.float64)
        if self._mode == "first":
            states = states[0]
        elif self._mode == "mean":
            # One row after the other, so the order of the sum is fixed for each column.
            total = np.zeros(states.shape[1])
            for row in states:
                total += row
            states = total / len(states)
        if dimensions > states.size:
            raise RequestRejected(f"dimensions: {dimensions}, the model has {states.size}")
        states = states[: dimensions or None]
        if self._unit:
            # accumulate is sequential by definition; a sum is not.
            length = np.sqrt(np.add.accumulate(states * states)[-1])
            states = states / length if length else states
        vector: Array = states.astype(np.float32)
        return vector


def _mode(folder: TensorFolder) -> str:
    config = folder.json(POOLING)
    if not config:
        raise ModelRejected(f"{POOLING}: missing, so it is not known how tokens become one vector")
    on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(on) != 1 or on[0] not in MODES:
        raise ModelRejected(f"{POOLING}: {', '.join(on) or 'no mode'}, expected one of "
                            f"{', '.join(MODES)}")  # fmt: skip
    return MODES[on[0]]


def _normalizes(folder: TensorFolder) -> bool:
    if not folder.has(MODULES):
        return False
    try:
        modules: Any = json.loads(folder.text(MODULES))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelRejected(f"{MODULES}: malformed: {error!r:.200}") from None
    known = ("Transformer", "Pooling", "Normalize")
    strange = [kind for kind in kinds if kind not in known]
    if strange:
        raise ModelRejected(f"{MODULES}: module {strange[0]!r:.80} is not supported, only {known}")
    return "Normalize" in kinds


def _tokens_max(folder: TensorFolder) -> int:
    """The shorter of what was trained and what there are positions for."""
    limits = [
        folder.json(SENTENCE_CONFIG).get("max_seq_length"),
        folder.json(CONFIG).get("max_position_embeddings"),
    ]
    good: Sequence[int] = [n for n in limits if type(n) is int and 0 < n <= 1 << 24]
    if not good:
        raise ModelRejected(f"{CONFIG}: no max_position_embeddings, so no limit is known")
    return min(good)


def _tokenizer(folder: TensorFolder) -> Any:
    try:
        tokenizer = Tokenizer.from_str(folder.text(TOKENIZER))
    except (KeyboardInterrupt, SystemExit):
        raise
    except ModelRejected:
        raise
    except BaseException as error:  # A panic in Rust is not an Exception.
        raise ModelRejected(f"{TOKENIZER}: {error!s:.300}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
