"""Sampling parameters: what a request says about how its tokens are chosen, and what is in force.

Names and ranges are those of OpenAI's chat completions and of vLLM's SamplingParams. What a request
does not say is `Sampling`'s default; the generation_config.json of a model counts only where a
request asks for it (``"defaults": "model"``). The answer says which values were in force.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lockstep.engine.errors import RequestRejected
from lockstep.workers.inference.fields import Fields, bounded, whole

TEMPERATURE_MAX = 10.0
TEMPERATURE_LEAST = 1e-5  # Below it is greedy, as in vLLM.
TOP_K_MAX = (1 << 31) - 1
REPETITION_MAX = 100.0
PENALTY_MAX = 2.0  # Of presence and frequency, and -2 is the least.
SEED_MAX = (1 << 64) - 1
SAMPLES_MAX = 64
TOKENS_MAX = (1 << 31) - 1
STOPS_MAX = 16
STOP_BYTES_MAX = 1024
STOP_IDS_MAX = 128
TOP_LOGPROBS_MAX = 20
OURS, MODELS = "lockstep", "model"  # Whose defaults are in force.
KEYS = (
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "seed", "n", "stop", "stop_token_ids", "ignore_eos", "min_tokens",
    "logprobs", "top_logprobs", "defaults",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the tokens of a request are chosen. The order: penalties, temperature, cuts, draw.

    Attributes:
        temperature: 0 is greedy.
        top_k: So many of the largest stay; 0: all.
        top_p: The fewest of the largest stay that have this share of the probability.
        min_p: Those stay that have this share of the largest one's probability.
        repetition_penalty: 1 is none; of tokens in the prompt and in the answer.
        presence_penalty, frequency_penalty: 0 is none; of tokens in the answer.
        seed: Takes the place of the run seed; None: the run's.
        n: Answers, of one prompt.
        stop: Strings before which the text ends, in the order given.
        stop_token_ids: Ids that end an answer, besides the model's own.
        ignore_eos: The model's own do not end it.
        min_tokens: Below so many tokens nothing ends it but a limit.
        logprobs: None: no log-probabilities; k: of each token and of the k likeliest.
        model_defaults: What was not said came from the model's generation_config.json.
        given: Names of those that the request itself gave.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: int | None = None
    model_defaults: bool = False
    given: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether earlier tokens change the logits of the next."""
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
        )

    @property
    def cuts(self) -> bool:
        """Whether some tokens are left out before the draw."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def over(self, defaults: Mapping[str, float]) -> "Sampling":
        """With a model's defaults for whatever the request did not give itself."""
        taken = {name: value for name, value in defaults.items() if name not in self.given}
        return replace(self, **taken)  # type: ignore[arg-type]

    def in_force(self, max_tokens: int) -> dict[str, Any]:
        """Every value, for the answer. ``seed`` None: the run's."""
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "seed": self.seed,
            "n": self.n,
            "max_tokens": max_tokens,
            "min_tokens": self.min_tokens,
            "stop": list(self.stop),
            "stop_token_ids": list(self.stop_token_ids),
            "ignore_eos": self.ignore_eos,
            "logprobs": self.logprobs,
            "defaults": MODELS if self.model_defaults else OURS,
        }


PLAIN = Sampling()  # What a request has that says nothing.


def temperature_of(fields: Fields) -> float:
    """The temperature, greedy if there is none."""
    return fields.number("temperature", 0, TEMPERATURE_MAX) or 0.0


def read_sampling(fields: Fields) -> Sampling:
    """The sampling parameters among the fields of a request.

    Raises:
        RequestRejected: one is out of range, or two contradict each other.
    """
    # vLLM and transformers spell "all" as -1 and as 0.
    top_k = fields.integer("top_k", -1, TOP_K_MAX) or 0
    return Sampling(
        temperature=temperature_of(fields),
        top_k=max(top_k, 0),
        top_p=_or(fields.number("top_p", 0, 1.0, above=True), 1.0),
        min_p=_or(fields.number("min_p", 0, 1.0), 0.0),
        repetition_penalty=_or(
            fields.number("repetition_penalty", 0, REPETITION_MAX, above=True), 1.0
        ),
        presence_penalty=_or(fields.number("presence_penalty", -PENALTY_MAX, PENALTY_MAX), 0.0),
        frequency_penalty=_or(fields.number("frequency_penalty", -PENALTY_MAX, PENALTY_MAX), 0.0),
        seed=fields.integer("seed", 0, SEED_MAX),
        n=fields.integer("n", 1, SAMPLES_MAX) or 1,
        stop=_stops(fields),
        stop_token_ids=_stop_ids(fields),
        ignore_eos=fields.flag("ignore_eos") or False,
        min_tokens=fields.integer("min_tokens", 0, TOKENS_MAX) or 0,
        logprobs=_logprobs(fields),
        model_defaults=fields.choice("defaults", (OURS, MODELS)) == MODELS,
        given=tuple(key for key in KEYS if key in fields),
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _stops(fields: Fields) -> tuple[str, ...]:
    found = fields.listed("stop", STOPS_MAX, alone=True)
    return tuple(bounded(text, "stop", STOP_BYTES_MAX) for text in found)


def _stop_ids(fields: Fields) -> tuple[int, ...]:
    found = fields.listed("stop_token_ids", STOP_IDS_MAX)
    ids = [whole(value, "stop_token_ids", 0, TOKENS_MAX) for value in found]
    return tuple(sorted(dict.fromkeys(ids)))


def _logprobs(fields: Fields) -> int | None:
    """``logprobs`` is a number (vLLM), or true with ``top_logprobs`` beside it (OpenAI)."""
    top = fields.integer("top_logprobs", 0, TOP_LOGPROBS_MAX)
    if "logprobs" not in fields or fields.value("logprobs") is False:
        if top is not None:
            raise RequestRejected('top_logprobs: needs "logprobs": true')
        return None
    if fields.value("logprobs") is True:
        return top or 0
    if top is not None:
        raise RequestRejected('top_logprobs: expected "logprobs": true beside it, not a number')
    return fields.integer("logprobs", 0, TOP_LOGPROBS_MAX)
