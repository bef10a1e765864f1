"""Answers as agents read them: RESULT and CANCELLED payloads, JSON and binary (docs/abi.md).

They are part of the history that two runs are compared by, so each value has one spelling.
"""

import struct
from collections.abc import Sequence

from lockstep.engine.plan import FINISH_STATUS, GOOD_FINISHES
from lockstep.engine.strict_json import dumps

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


def encode_result(
    raw: bool,
    *,
    text: str,
    token_ids: Sequence[int],
    finish_reason: str,
    tokens_in: int,
    tokens_cached: int,
    ticket: int,
    step: int,
) -> bytes:
    """The RESULT payload of a request that was answered ("stop" or "length")."""
    if finish_reason not in GOOD_FINISHES:
        raise ValueError(f"finish reason {finish_reason!r} is a failure")
    if raw:
        status = FINISH_STATUS[finish_reason]
        return _binary_result(status, tokens_in, token_ids, text, ticket, step)
    usage = {
        "prompt_tokens": tokens_in,
        "completion_tokens": len(token_ids),
        "cached_tokens": tokens_cached,
    }
    return dumps(
        {
            "text": text,
            "token_ids": list(token_ids),
            "finish_reason": finish_reason,
            "usage": usage,
            "ticket": ticket,
            "step": step,
        }
    )


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
