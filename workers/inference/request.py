"""Inference requests as agents write them (INFER of docs/abi.md); the answers are in result.py.

A guest is not trusted: every field is typed and range-checked here, once, and a refusal says what
was found and what would be right. A prompt is never cut to fit.
"""

import struct
from dataclasses import dataclass
from typing import Any

from lockstep.engine.errors import RequestRejected
from lockstep.engine.settings import nearest
from lockstep.workers.inference import sampling
from lockstep.workers.inference.fields import Fields, object_of, real, words, wrong
from lockstep.workers.inference.sampling import PLAIN, TEMPERATURE_MAX, Sampling, read_sampling

REQUEST_BYTES_MAX = 16 << 20
DEPTH_MAX = 8
MESSAGES_MAX = 4096
NAME_BYTES_MAX = 256  # Of `model` and `conversation`.
TOKENS_OUT_MAX = (1 << 31) - 1
PRIORITY_MAX = 7
TIMEOUT_STEPS_MAX = (1 << 32) - 1
ORDINAL_MAX = (1 << 63) - 1
ROLES = ("system", "developer", "user", "assistant", "tool")
# Those of runs whose rules do not know `engine.version.ANSWERS`; a refusal lists them.
OLD_KEYS = (
    "messages", "prompt", "max_tokens", "temperature", "seed", "model", "priority",
    "timeout_steps", "conversation",
)  # fmt: skip
KEYS = (*OLD_KEYS, "ordinal", *(key for key in sampling.KEYS if key not in OLD_KEYS))
# What others take and this runtime does not: said by name, since nothing here is near to it.
FOREIGN = {
    "OpenAI": (
        "audio", "function_call", "functions", "logit_bias", "metadata",
        "modalities", "parallel_tool_calls", "prediction", "reasoning_effort", "response_format",
        "service_tier", "store", "stream", "stream_options", "suffix", "echo", "best_of",
        "tool_choice", "tools", "user",
    ),
    "vLLM": (
        "allowed_token_ids", "bad_words", "detokenize", "extra_args", "guided_json",
        "include_stop_str_in_output", "length_penalty", "logits_processors", "output_kind",
        "prompt_logprobs", "skip_special_tokens", "spaces_between_special_tokens",
        "structured_outputs", "truncate_prompt_tokens", "use_beam_search",
    ),
}  # fmt: skip
RENAMED = {"max_completion_tokens": "max_tokens", "max_new_tokens": "max_tokens"}

# INFER, binary form, little-endian; then the prompt in UTF-8.
#
#   0                 4               8           12         16        24
#   +-----------------+---------------+-----------+----------+---------+-- ... --+
#   | tokens_out_max  | temperature   | flags     | reserved | seed    | prompt  |
#   | u32, 0: no say  | f32           | u32       | u32 = 0  | u64     | UTF-8   |
#   +-----------------+---------------+-----------+----------+---------+-- ... --+
INFER_HEADER = struct.Struct("<IfIIQ")
INFER_OFFSETS = {"tokens_out_max": 0, "temperature": 4, "flags": 8, "reserved": 12, "seed": 16}
FLAG_SEED = 1


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request as its agent wrote it. Exactly one of ``prompt`` and ``messages`` is not None.

    Attributes:
        prompt: Text as it is.
        messages: For the chat template.
        tokens_out_max: None: as many as there is room for.
        sampling: How its tokens are chosen.
        model: Name; None: the record's ``peer`` counts.
        priority: 0 (default) to 7.
        timeout_steps: 0 is never.
        conversation: Whose KV it continues; None: the agent's item.
        ordinal: In place of the agent's own request number in the draws; None: that.
        raw: It came in binary form and is answered in it.
    """

    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    tokens_out_max: int | None = None
    sampling: Sampling = PLAIN
    model: str | None = None
    priority: int = 0
    timeout_steps: int = 0
    conversation: str | None = None
    ordinal: int | None = None
    raw: bool = False


def parse_infer(payload: bytes, raw: bool, *, old: bool = False) -> InferRequest:
    """The request in an INFER payload.

    Args:
        payload: Of the record.
        raw: The record has flag RAW.
        old: The run's rules are older than `engine.version.ANSWERS`: only `OLD_KEYS` are known.

    Raises:
        RequestRejected: malformed, an unknown key, or a value out of range.
    """
    return _parse_binary(payload) if raw else _parse_json(payload, OLD_KEYS if old else KEYS)


def tokens_out(request: InferRequest, prompt_tokens: int, tokens_max: int) -> int:
    """How many tokens a request may generate: what it asked for, else all the room.

    Raises:
        RequestRejected: no prompt, or prompt and answer do not fit; the arithmetic is shown.
    """
    room = tokens_max - prompt_tokens
    if prompt_tokens < 1:
        raise RequestRejected("prompt: 0 tokens, at least 1 is needed")
    if room < 1:
        raise RequestRejected(
            f"prompt: {prompt_tokens} tokens and 1 to generate are {prompt_tokens + 1}, the model "
            f"is set to at most {tokens_max}"
        )
    wanted = room if request.tokens_out_max is None else request.tokens_out_max
    if wanted > room:
        raise RequestRejected(
            f"prompt: {prompt_tokens} tokens and max_tokens = {wanted} are "
            f"{prompt_tokens + wanted}, the model is set to at most {tokens_max}"
        )
    return wanted


def _parse_json(payload: bytes, known: tuple[str, ...]) -> InferRequest:
    found = object_of(payload, REQUEST_BYTES_MAX, DEPTH_MAX)
    for key in found:
        if key not in known:
            raise RequestRejected(f"request: key {key!r:.80} is {_unknown(key[:80], known)}")
    if ("prompt" in found) == ("messages" in found):
        raise RequestRejected("request: expected one of prompt and messages")
    fields = Fields(found)
    return InferRequest(
        prompt=fields.text("prompt"),
        messages=_messages(found["messages"]) if "messages" in found else None,
        tokens_out_max=fields.integer("max_tokens", 1, TOKENS_OUT_MAX),
        sampling=read_sampling(fields),
        model=fields.name("model", NAME_BYTES_MAX),
        priority=fields.integer("priority", 0, PRIORITY_MAX) or 0,
        timeout_steps=fields.integer("timeout_steps", 0, TIMEOUT_STEPS_MAX) or 0,
        conversation=fields.name("conversation", NAME_BYTES_MAX),
        ordinal=fields.integer("ordinal", 0, ORDINAL_MAX),
    )


def _unknown(key: str, known: tuple[str, ...]) -> str:
    if known is KEYS:
        if key in RENAMED:
            return f"unknown; here it is {RENAMED[key]!r}"
        for whose, keys in FOREIGN.items():
            if key in keys:
                return f"known to {whose}, and not served here"
    return f"unknown{nearest(key, known)}"


def _parse_binary(payload: bytes) -> InferRequest:
    size = INFER_HEADER.size
    if not size <= len(payload) <= REQUEST_BYTES_MAX:
        raise RequestRejected(
            f"request: {len(payload)} bytes, expected {size} to {REQUEST_BYTES_MAX}"
        )
    tokens_out_max, temperature, flags, reserved, seed = INFER_HEADER.unpack_from(payload)
    if flags & ~FLAG_SEED or reserved:
        raise RequestRejected(
            f"request: flags {flags} and reserved {reserved}, expected 0 or 1 and 0"
        )
    if not flags and seed:
        raise RequestRejected(f"request: seed {seed} without flag 1 (seed given)")
    if tokens_out_max > TOKENS_OUT_MAX:
        raise RequestRejected(
            f"tokens_out_max: {tokens_out_max}, expected 0 (all the room) to {TOKENS_OUT_MAX}"
        )
    try:
        prompt = payload[size:].decode()
    except UnicodeDecodeError as error:
        raise RequestRejected(f"prompt: not UTF-8 at byte {error.start}") from None
    return InferRequest(
        prompt=words(prompt, "prompt"),
        tokens_out_max=tokens_out_max or None,
        sampling=Sampling(
            temperature=real(temperature, "temperature", 0, TEMPERATURE_MAX),
            seed=seed if flags else None,
        ),
        raw=True,
    )


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MESSAGES_MAX:
        raise RequestRejected(f"messages: expected a list of 1 to {MESSAGES_MAX}")
    return tuple(_message(item, f"messages[{index}]") for index, item in enumerate(value))


def _message(value: Any, path: str) -> Message:
    if not isinstance(value, dict) or set(value) != {"role", "content"}:
        raise wrong(f"{path}: ", value, ', expected {"role", "content"}')
    role, content = value["role"], value["content"]
    if role not in ROLES:
        raise wrong(f"{path}.role: ", role, f" is unknown{nearest(str(role)[:80], ROLES)}")
    if not isinstance(content, str):
        raise wrong(f"{path}.content: ", content, ", expected text")
    return Message(role, content)
