"""Inference requests as agents write them (INFER of docs/abi.md); the answers are in result.py.

A guest is not trusted: every field is typed and range-checked here, once, and a refusal says what
was found and what would be right. A prompt is never cut to fit.
"""

import struct
from dataclasses import dataclass
from typing import Any

from lockstep.engine.errors import RequestRejected
from lockstep.engine.settings import nearest
from lockstep.engine.strict_json import loads

REQUEST_BYTES_MAX = 16 << 20
DEPTH_MAX = 8
MESSAGES_MAX = 4096
NAME_BYTES_MAX = 256  # Of `model` and `conversation`.
TOKENS_OUT_MAX = (1 << 31) - 1
TEMPERATURE_MAX = 10.0
SEED_MAX = (1 << 64) - 1
PRIORITY_MAX = 7
TIMEOUT_STEPS_MAX = (1 << 32) - 1
ROLES = ("system", "developer", "user", "assistant", "tool")
KEYS = (
    "messages", "prompt", "max_tokens", "temperature", "seed", "model", "priority",
    "timeout_steps", "conversation",
)  # fmt: skip

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
        temperature: 0 is greedy.
        seed: Takes the place of the run seed.
        model: Name; None: the record's ``peer`` counts.
        priority: 0 (default) to 7.
        timeout_steps: 0 is never.
        conversation: Whose KV it continues; None: the agent's item.
        raw: It came in binary form and is answered in it.
    """

    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    tokens_out_max: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    model: str | None = None
    priority: int = 0
    timeout_steps: int = 0
    conversation: str | None = None
    raw: bool = False


def parse_infer(payload: bytes, raw: bool) -> InferRequest:
    """The request in an INFER payload.

    Args:
        payload: Of the record.
        raw: The record has flag RAW.

    Raises:
        RequestRejected: malformed, an unknown key, or a value out of range.
    """
    return _parse_binary(payload) if raw else _parse_json(payload)


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


def _parse_json(payload: bytes) -> InferRequest:
    if len(payload) > REQUEST_BYTES_MAX:
        raise RequestRejected(f"request: {len(payload)} bytes, at most {REQUEST_BYTES_MAX}")
    try:
        found = loads(payload, DEPTH_MAX)
    except ValueError as error:
        raise RequestRejected(f"request: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise RequestRejected(f"request: expected a JSON object, found {type(found).__name__}")
    for key in found:
        if key not in KEYS:
            raise RequestRejected(f"request: key {key!r:.80} is unknown{nearest(key[:80], KEYS)}")
    if ("prompt" in found) == ("messages" in found):
        raise RequestRejected("request: expected one of prompt and messages")
    return InferRequest(
        prompt=_text(found["prompt"], "prompt") if "prompt" in found else None,
        messages=_messages(found["messages"]) if "messages" in found else None,
        tokens_out_max=_integer(found, "max_tokens", 1, TOKENS_OUT_MAX),
        temperature=_temperature(found.get("temperature", 0.0)),
        seed=_integer(found, "seed", 0, SEED_MAX),
        model=_name(found, "model"),
        priority=_integer(found, "priority", 0, PRIORITY_MAX) or 0,
        timeout_steps=_integer(found, "timeout_steps", 0, TIMEOUT_STEPS_MAX) or 0,
        conversation=_name(found, "conversation"),
    )


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
        prompt=_text(prompt, "prompt"),
        tokens_out_max=tokens_out_max or None,
        temperature=_temperature(temperature),
        seed=seed if flags else None,
        raw=True,
    )


def _integer(found: dict[str, Any], key: str, low: int, high: int) -> int | None:
    if key not in found:
        return None
    value = found[key]
    if type(value) is not int or not low <= value <= high:
        raise RequestRejected(f"{key}: {value!r:.80}, expected a whole number of {low} to {high}")
    return value


def _temperature(value: Any) -> float:
    # A NaN, which the binary form can spell, fails the comparison.
    if type(value) not in (int, float) or not 0 <= value <= TEMPERATURE_MAX:
        raise RequestRejected(f"temperature: {value!r:.80}, expected 0 to {TEMPERATURE_MAX}")
    return abs(float(value))  # -0.0 is 0.


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise RequestRejected(f"{key}: {value!r:.80}, expected text")
    if not value:
        raise RequestRejected(f"{key}: empty, at least 1 character is needed")
    return value


def _name(found: dict[str, Any], key: str) -> str | None:
    if key not in found:
        return None
    value = _text(found[key], key)
    size = len(value.encode())
    if size > NAME_BYTES_MAX:
        raise RequestRejected(f"{key}: {size} bytes, at most {NAME_BYTES_MAX}")
    return value


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MESSAGES_MAX:
        raise RequestRejected(f"messages: expected a list of 1 to {MESSAGES_MAX}")
    return tuple(_message(item, f"messages[{index}]") for index, item in enumerate(value))


def _message(value: Any, path: str) -> Message:
    if not isinstance(value, dict) or set(value) != {"role", "content"}:
        raise RequestRejected(f'{path}: {value!r:.80}, expected {{"role", "content"}}')
    role, content = value["role"], value["content"]
    if role not in ROLES:
        raise RequestRejected(
            f"{path}.role: {role!r:.80} is unknown{nearest(str(role)[:80], ROLES)}"
        )
    if not isinstance(content, str):
        raise RequestRejected(f"{path}.content: {content!r:.80}, expected text")
    return Message(role, content)
