"""HF transformers: serves a trace of conversations in rounds of one batch.

The strongest form that its own parts give on a CPU: the shared text is computed once and repeated
for all rows; every row keeps its keys and values from turn to turn; a round is one padded pass
over all agents' new lines and then a pass per token, until the longest answer is there. Nothing is
computed twice. What it pays for is padding (a round waits for its longest answer) and weights of
16 or 32 bits; both are tried, the quicker is taken.
"""

import time
from contextlib import ExitStack
from importlib import import_module
from typing import Any

Answer = dict[str, Any]
TRIAL_STEPS = 4
PAD = 0  # Masked: any token.


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
                return self._open(request["shape"], request["threads"], request["agents"])
            return self._serve(request["trace"])

    def _open(self, shape: Answer, threads: int, agents: int) -> Answer:
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
        )
        times = {}
        for dtype in (torch.float32, torch.bfloat16):
            model = self._hf.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
            times[self._trial(model, agents)] = model
        self._model = times[min(times)]
        return {"dtype": str(self._model.dtype)}

    def _trial(self, model: Any, agents: int) -> float:
        """Seconds of some steps with all rows; the first passes are warm-up."""
        cache = self._hf.DynamicCache(config=model.config)
        given = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        model(self._torch.ones(agents, 16, dtype=self._torch.long), **given)
        times = []
        for _ in range(TRIAL_STEPS):
            begun = time.perf_counter()
            model(self._torch.ones(agents, 1, dtype=self._torch.long), **given)
            times.append(time.perf_counter() - begun)
        return min(times)

    def _serve(self, trace: Answer) -> Answer:
        torch, agents, shared = self._torch, len(trace["agents"]), len(trace["shared"])
        begun = time.perf_counter_ns()
        self._cache = self._hf.DynamicCache(config=self._model.config)
        self._mask = torch.ones(1, 0, dtype=torch.long)
        self._pass([trace["shared"]], [shared])
        self._cache.batch_repeat_interleave(agents)
        self._mask = self._mask.repeat(agents, 1)
        sizes, served = [shared] * agents, []  # Tokens of each conversation; what is answered.
        last: list[list[int]] = [[] for _ in range(agents)]  # Said, but not yet in the cache.
        for turn in range(len(trace["agents"][0])):
            asked = begun if turn == 0 else time.perf_counter_ns()
            says = [turns[turn] for turns in trace["agents"]]
            lines = [kept + line for kept, (line, _) in zip(last, says, strict=True)]
            times, last = self._round(lines, [tokens for _, tokens in says])
            for row, (line, tokens) in enumerate(says):
                cached = sizes[row] - 1 if turn else shared
                sizes[row] += len(line)
                served.append([asked, times[row], sizes[row], cached])
                sizes[row] += tokens
        return {"ns": time.perf_counter_ns() - begun, "requests": served}

    def _round(
        self, lines: list[list[int]], wanted: list[int]
    ) -> tuple[list[list[int]], list[list[int]]]:
        """(times of each row's tokens, each row's last token)."""
        rows = range(len(lines))
        length = max(len(line) for line in lines)
        padded = [[PAD] * (length - len(line)) + line for line in lines]
        said = self._pass(padded, [len(line) for line in lines])
        times: list[list[int]] = [[] for _ in rows]
        last: list[list[int]] = [[] for _ in rows]
        for place in range(max(wanted)):
            if place:  # Rows that are done go on, masked: the batch is what it is.
                alive = [int(place < tokens) for tokens in wanted]
                said = self._pass(said, alive)
            now = time.perf_counter_ns()
            for row in rows:
                if place < wanted[row]:
                    times[row].append(now)
                    last[row] = said[row]
        return times, last

    def _pass(self, ids: list[list[int]], counts: list[int]) -> list[list[int]]:
        """One forward pass: of each row's ids the last ``counts`` count. The rows' next tokens."""
        torch = self._torch
        width = len(ids[0])
        new = torch.tensor([[0] * (width - count) + [1] * count for count in counts])
        self._mask = torch.cat([self._mask, new], dim=1)
        positions = (self._mask.cumsum(1)[:, -width:] - 1).clamp(min=0)
        logits = self._model(
            torch.tensor(ids),
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        found: list[list[int]] = logits[:, -1].argmax(-1, keepdim=True).tolist()
        return found


def begin(_stack: ExitStack) -> tuple[dict[str, str], Any]:
    """Versions, and what answers requests."""
    contestant = Contestant()
    return contestant.versions, contestant.ask
