"""HF transformers: a batch of equal rows; one step is a forward pass with its cache and argmax.

The model is built from a config of the same shape with weights drawn by torch: speed does not
depend on them. Scaled-dot-product attention, inference mode, no `generate` around it.
"""

import time
from contextlib import ExitStack
from importlib import import_module
from typing import Any

Answer = dict[str, Any]


class Contestant:
    """Opened once; each batch has a cache of its own."""

    def __init__(self) -> None:
        self._torch: Any = import_module("torch")
        self._hf: Any = import_module("transformers")
        self.versions = {"torch": self._torch.__version__, "transformers": self._hf.__version__}
        self._model: Any = None
        self._cache: Any = None
        self._next: Any = None

    def ask(self, request: Answer) -> Answer:
        """Answer ``open``, ``begin`` and ``steps`` as bench/decoding.py does."""
        with self._torch.inference_mode():
            if request["do"] == "open":
                return self._open(request["shape"], request["threads"])
            if request["do"] == "begin":
                return self._begin(request["ids"])
            return {"times_ns": [self._step() for _ in range(request["steps"])]}

    def _open(self, shape: Answer, threads: int) -> Answer:
        self._torch.set_num_threads(threads)
        self._torch.manual_seed(0)
        config = self._hf.LlamaConfig(
            vocab_size=shape["vocab"],
            hidden_size=shape["hidden"],
            intermediate_size=shape["intermediate"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["kv_heads"],
            head_dim=shape["head_dim"],
            max_position_embeddings=shape["context_tokens"],
            tie_word_embeddings=True,
        )
        dtype = self._torch.float32
        self._model = self._hf.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        return {}

    def _begin(self, ids: list[list[int]]) -> Answer:
        self._cache = self._hf.DynamicCache(config=self._model.config)
        self._next = self._torch.tensor(ids)
        self._step()  # What the prompt's own run says.
        return {}

    def _step(self) -> int:
        begun = time.perf_counter_ns()
        given = {"past_key_values": self._cache, "use_cache": True, "logits_to_keep": 1}
        logits = self._model(self._next, **given).logits
        self._next = logits[:, -1].argmax(-1, keepdim=True)
        return time.perf_counter_ns() - begun


def begin(_stack: ExitStack) -> tuple[dict[str, str], Any]:
    """Versions, and what answers requests."""
    contestant = Contestant()
    return contestant.versions, contestant.ask
