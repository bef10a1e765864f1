"""HF transformers: serves conversations one after another by `generate`, each with its own cache.

What the library offers as it is: the shared text is computed once and its cache copied for every
conversation, a conversation's cache is handed to `generate` turn by turn. There is no batch, so
tokens per second do not depend on how many conversations there are. Weights of 32 and 16 bits are
tried, the quicker is taken.
"""

import copy
import time
from contextlib import ExitStack
from importlib import import_module
from typing import Any

Answer = dict[str, Any]
TRIAL_STEPS = 8


class Contestant:
    """Opened once; each trace is served from new."""

    def __init__(self) -> None:
        self._torch: Any = import_module("torch")
        self._hf: Any = import_module("transformers")
        self.versions = {"torch": self._torch.__version__, "transformers": self._hf.__version__}
        self._model: Any = None

    def ask(self, request: Answer) -> Answer:
        """``open``, then ``serve`` as often as wanted: ``ns`` of all, and its requests."""
        with self._torch.inference_mode():
            if request["do"] == "open":
                return self._open(request["shape"], request["threads"])
            return self._serve(request["trace"])

    def _open(self, shape: Answer, threads: int) -> Answer:
        torch = self._torch
        torch.set_num_threads(threads)
        torch.manual_seed(0)
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
            bos_token_id=None,
            eos_token_id=None,  # No answer ends before its length.
            pad_token_id=None,
        )
        times = {}
        for dtype in (torch.float32, torch.bfloat16):
            model = self._hf.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
            begun = time.perf_counter()
            self._say(model, [1, 2, 3], TRIAL_STEPS, self._hf.DynamicCache(config=config))
            times[time.perf_counter() - begun] = model
        self._model = times[min(times)]
        return {"dtype": str(self._model.dtype)}

    def _say(self, model: Any, text: list[int], tokens: int, cache: Any) -> list[int]:
        """The whole text behind ``tokens`` more; the cache goes on with it."""
        found: list[list[int]] = model.generate(
            self._torch.tensor([text]),
            attention_mask=self._torch.ones(1, len(text), dtype=self._torch.long),
            past_key_values=cache,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
        ).tolist()
        return found[0]

    def _serve(self, trace: Answer) -> Answer:
        begun, served = time.perf_counter_ns(), []
        shared = self._hf.DynamicCache(config=self._model.config)
        self._model(self._torch.tensor([trace["shared"]]), past_key_values=shared, use_cache=True,
                    logits_to_keep=1)  # fmt: skip
        for turns in trace["agents"]:
            text, cache = list(trace["shared"]), copy.deepcopy(shared)
            for line, tokens in turns:
                asked, cached = time.perf_counter_ns(), cache.get_seq_length()
                text += line
                prompt = len(text)
                text = self._say(self._model, text, tokens, cache)
                ended = time.perf_counter_ns()
                # `generate` tells no times of tokens: they are spread evenly.
                each = (ended - asked) // tokens
                times = [asked + each * (place + 1) for place in range(tokens)]
                served.append([asked, times, prompt, cached])
        return {"ns": time.perf_counter_ns() - begun, "requests": served}


def begin(_stack: ExitStack) -> tuple[dict[str, str], Any]:
    """Versions, and what answers requests."""
    contestant = Contestant()
    return contestant.versions, contestant.ask
