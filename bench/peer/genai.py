"""onnxruntime-genai: a Generator at a batch of equal rows; one step is ``generate_next_token``."""

import json
import time
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import numpy as np

Answer = dict[str, Any]


class Contestant:
    """Opened once; each batch is a Generator of its own."""

    def __init__(self) -> None:
        self._og: Any = import_module("onnxruntime_genai")
        self.versions = {"onnxruntime-genai": self._og.__version__}
        self._model: Any = None
        self._generator: Any = None

    def ask(self, request: Answer) -> Answer:
        """Answer ``open``, ``begin`` and ``steps`` as bench/decoding.py does."""
        if request["do"] == "open":
            return self._open(request["model"], request["threads"])
        if request["do"] == "begin":
            return self._begin(request["ids"], request["tokens"])
        return {"times_ns": [self._step() for _ in range(request["steps"])]}

    def _open(self, model: str, threads: int) -> Answer:
        config = self._og.Config(model)
        options = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = self._og.Model(config)
        return {}

    def _begin(self, ids: list[list[int]], tokens: int) -> Answer:
        self._generator = None  # One batch's keys and values at a time.
        params = self._og.GeneratorParams(self._model)
        length = len(ids[0]) + tokens + 1
        params.set_search_options(max_length=length, batch_size=len(ids), do_sample=False)
        self._generator = self._og.Generator(self._model, params)
        self._generator.append_tokens(np.array(ids, np.int32))
        self._generator.generate_next_token()  # What the prompt's own run says.
        return {}

    def _step(self) -> int:
        begun = time.perf_counter_ns()
        self._generator.generate_next_token()
        return time.perf_counter_ns() - begun


def begin(_stack: ExitStack) -> tuple[dict[str, str], Any]:
    """Versions, and what answers requests."""
    contestant = Contestant()
    return contestant.versions, contestant.ask
