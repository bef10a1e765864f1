"""Answers as agents read them: RESULT and CANCELLED payloads, JSON and binary (docs/abi.md).

They are part of the history that two runs are compared by, so each value has one spelling.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.engine.plan import FINISH_STATUS, GOOD_FINISHES, Ended
from lockstep.engine.record import (
    FLAG_ERROR,
    FLAG_RAW,
    HEADER_BYTES,
    Kind,
    Record,
    aligned,
    encode,
)
from lockstep.engine.strict_json import dumps
from lockstep.workers.inference.logprobs import Scored, spelled

# RESULT, binary form, little-endian; then text, zero padding to 4, and i32 token ids.
#
#   0        4           8            12           16       24      32
#   +--------+-----------+------------+------------+--------+-------+-- ... --+
#   | status | tokens_in | tokens_out | text_bytes | ticket | step  | text    |
#   | u32    | u32       | u32        | u32        | u64    | u64   | UTF-8   |
#   +--------+-----------+------------+------------+--------+-------+-- ... --+
ERROR_BYTES_MAX = 300
RESULT_HEADER = struct.Struct("<IIIIQQ")
RESULT_OFFSETS = {
    "status": 0, "tokens_in": 4, "tokens_out": 8, "text_bytes": 12, "ticket": 16, "step": 24,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer of a request.

    Attributes:
        text: Without what ended it.
        token_ids: As generated.
        finish_reason: "stop" or "length".
        stop_reason: The stop string or stop token of the request that ended it, or None.
        logprobs: Of each token, spelled, or None: nobody asked.
    """

    text: str
    token_ids: Sequence[int]
    finish_reason: str
    stop_reason: str | int | None = None
    logprobs: Sequence[dict[str, Any]] | None = None

    def to_json(self) -> dict[str, Any]:
        """As in the answer."""
        shown: dict[str, Any] = {
            "text": self.text,
            "token_ids": list(self.token_ids),
            "finish_reason": self.finish_reason,
            "stop_reason": self.stop_reason,
        }
        if self.logprobs is not None:
            shown["logprobs"] = list(self.logprobs)
        return shown


def encode_result(
    raw: bool,
    choices: Sequence[Choice],
    *,
    sampling: dict[str, Any] | None,
    tokens_in: int,
    tokens_cached: int,
    ticket: int,
    step: int,
) -> bytes:
    """The RESULT payload of a request that was answered ("stop" or "length").

    Args:
        raw: In binary form; it has one choice.
        choices: One, or ``choices`` are listed.
        sampling: What was in force; None: the run's rules are older than that.
        tokens_in: Of the prompt.
        tokens_cached: Of them, those that were not computed.
        ticket: Its number.
        step: That ended it.
    """
    for choice in choices:
        if choice.finish_reason not in GOOD_FINISHES:
            raise ValueError(f"finish reason {choice.finish_reason!r} is a failure")
    first = choices[0]
    if raw:
        status = FINISH_STATUS[first.finish_reason]
        return _binary_result(status, tokens_in, first.token_ids, first.text, ticket, step)
    usage = {
        "prompt_tokens": tokens_in,
        "completion_tokens": sum(len(choice.token_ids) for choice in choices),
        "cached_tokens": tokens_cached,
    }
    shown = first.to_json()
    if sampling is None:
        del shown["stop_reason"]
    else:
        shown["sampling"] = sampling
    if len(choices) > 1:
        listed = [{"index": n, **choice.to_json()} for n, choice in enumerate(choices)]
        shown = {"choices": listed, "sampling": sampling}
    return dumps({**shown, "usage": usage, "ticket": ticket, "step": step})


def result_bytes_least(
    tokens: int, samples: int, logprobs: int | None, sampling: dict[str, Any]
) -> int:
    """Bytes that the JSON form has at least, with so many tokens in each of so many samples.

    Every text is counted as empty, and every number as its shortest spelling.
    """
    scored = None if logprobs is None else (Scored(0, 0),) * (1 + logprobs)
    empty = Choice("", (), "stop", None, None if scored is None else ())
    frame = encode_result(
        False, [empty] * samples, sampling=sampling, tokens_in=1, tokens_cached=0, ticket=0, step=0
    )
    each = len("0,") + (0 if scored is None else len(dumps(spelled(scored, None))) + 1)
    return len(frame) + samples * max(0, tokens * each - (1 if scored is None else 2))


def encode_answer(
    record: Record, model: int, step: int, end: Ended, payload: bytes, bytes_max: int
) -> tuple[int, bytes]:
    """The record that answers a request, and its status (`FINISH_STATUS`).

    Args:
        record: That asked.
        model: Index of who was asked.
        step: In which it ended.
        end: How.
        payload: Of a good answer; one that does not fit is refused with the arithmetic.
        bytes_max: Of the record.
    """
    raw = bool(record.flags & FLAG_RAW)
    if end.reason in GOOD_FINISHES and aligned(HEADER_BYTES + len(payload)) > bytes_max:
        room = bytes_max - HEADER_BYTES
        text = f"the answer has {len(payload)} bytes, [fleet] record_bytes_max allows {room}"
        end = Ended(end.ticket, "refused", text)
    good = end.reason in GOOD_FINISHES
    if not good:
        payload = encode_failure(
            raw, finish_reason=end.reason, error=end.text, ticket=end.ticket, step=step
        )
    kind = Kind.CANCELLED if end.reason == "cancelled" else Kind.RESULT
    flags = (FLAG_RAW if raw else 0) | (0 if good else FLAG_ERROR)
    answer = encode(kind, payload, flags=flags, id=record.id, item=record.item, peer=model)
    return FINISH_STATUS[end.reason], answer


def encode_failure(raw: bool, *, finish_reason: str, error: str, ticket: int, step: int) -> bytes:
    """The payload of a RESULT with flag ERROR, or of CANCELLED; ``error`` is the why."""
    if finish_reason in GOOD_FINISHES:
        raise ValueError(f"finish reason {finish_reason!r} is no failure")
    status = FINISH_STATUS[finish_reason]
    # Cut, so that a refusal which repeats what a guest wrote always fits a record.
    error = error.encode()[:ERROR_BYTES_MAX].decode(errors="ignore")
    if raw:
        return _binary_result(status, 0, (), error, ticket, step)
    return dumps({"error": error, "finish_reason": finish_reason, "ticket": ticket, "step": step})


def _binary_result(
    status: int, tokens_in: int, ids: Sequence[int], text: str, ticket: int, step: int
) -> bytes:
    data = text.encode()
    head = RESULT_HEADER.pack(status, tokens_in, len(ids), len(data), ticket, step)
    return head + data + bytes(-len(data) % 4) + struct.pack(f"<{len(ids)}i", *ids)
