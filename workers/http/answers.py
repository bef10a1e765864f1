"""Answers: what a model or a fleet said, in OpenAI's objects; ``lockstep`` says where it is kept.

An `Answer` is the last line of the control socket for a call or an item, with its output lines.
"""

import base64
import json
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lockstep.workers.http.params import rejected
from lockstep.workers.http.problems import Problem

Object = dict[str, Any]
NO_NAMES: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Head:
    """What all objects of one answer have in common.

    Attributes:
        id: Of the item; the objects' begins with their kind.
        model: As the client named it.
        fingerprint: Of what decides its bits; None: of a fleet, several models may.
        created: Seconds since 1970, when it was asked.
    """

    id: str | int
    model: str
    fingerprint: str | None
    created: int = field(default_factory=lambda: int(time.time()))

    def of(self, kind: str, prefix: str) -> Object:
        """The beginning of an object."""
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def result_of(answer: Mapping[str, Any], names: Mapping[str, str] = NO_NAMES) -> Object:
    """What a model said (RESULT of docs/abi.md).

    Args:
        answer: The last line of a call.
        names: As in `Asked`, for what is said of a refusal.

    Raises:
        Problem: it did not answer.
    """
    (line,) = answer["answer"]
    if "error" in line:
        raise Problem(422, str(line["error"]), code="item_failed")
    result: Object = line["payload"]
    if "error" in result:
        raise _failure(result, names)
    return result


def _failure(result: Object, names: Mapping[str, str]) -> Problem:
    text, reason = str(result["error"]), str(result["finish_reason"])
    # How many dimensions there are is known when the model has run.
    if reason == "refused" or text.startswith("dimensions:"):
        return rejected(text, names)
    if reason == "cancelled":
        return Problem(422, text or "cancelled", code="item_failed")
    return Problem(500, text, code=reason)


def usage_of(result: Object) -> Object:
    """Tokens, as they were counted."""
    found = result["usage"]
    asked, made = found["prompt_tokens"], found.get("completion_tokens", 0)
    usage = {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}
    if "cached_tokens" in found:
        usage["prompt_tokens_details"] = {"cached_tokens": found["cached_tokens"]}
    return usage


def place_of(answer: Mapping[str, Any], result: Object | None = None) -> Object:
    """Where an answer is recorded, and what was in force."""
    place = {"run": answer["run"], "item": answer["item"], "tag": answer["tag"]}
    kept = ("ticket", "step", "sampling")
    return place | {key: result[key] for key in kept if result is not None and key in result}


def choices_of(result: Object) -> list[Object]:
    """The model's answers, each with ``index``."""
    listed: list[Object] = result.get("choices") or [{"index": 0, **result}]
    return listed


def chat(head: Head, answer: Mapping[str, Any], result: Object) -> Object:
    """A chat.completion."""
    choices = [
        {
            "index": choice["index"],
            "message": {"role": "assistant", "content": choice["text"], "refusal": None},
            "logprobs": chat_logprobs(choice),
            "finish_reason": choice["finish_reason"],
        }
        for choice in choices_of(result)
    ]
    return _whole(head.of("chat.completion", "chatcmpl"), choices, answer, result)


def completion(head: Head, answer: Mapping[str, Any], result: Object) -> Object:
    """A text_completion."""
    choices = [
        {
            "index": choice["index"],
            "text": choice["text"],
            "logprobs": completion_logprobs(choice),
            "finish_reason": choice["finish_reason"],
        }
        for choice in choices_of(result)
    ]
    return _whole(head.of("text_completion", "cmpl"), choices, answer, result)


def _whole(
    head: Object, choices: list[Object], answer: Mapping[str, Any], result: Object
) -> Object:
    said = {"usage": usage_of(result), "lockstep": place_of(answer, result)}
    return {**head, "choices": choices, **said}


def embeddings(head: Head, answer: Mapping[str, Any], result: Object, floats: bool) -> Object:
    """A list of embeddings; ``floats``: as numbers, else in base64 as the model gave them."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _floats(each["base64"]) if floats else each["base64"],
        }
        for index, each in enumerate(result["embeddings"])
    ]
    usage = usage_of(result)
    del usage["completion_tokens"]
    return {
        "object": "list",
        "data": data,
        "model": head.model,
        "usage": usage,
        "system_fingerprint": head.fingerprint,
        "lockstep": place_of(answer, result),
    }


def fleet(head: Head, answer: Mapping[str, Any]) -> Object:
    """A chat.completion of what a fleet put out for an item. Errors as `said_by_fleet`."""
    message = {"role": "assistant", "content": said_by_fleet(answer), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {
        **head.of("chat.completion", "chatcmpl"),
        "choices": [choice],
        "usage": None,  # Nobody counts which of a fleet's tokens are an item's.
        "lockstep": place_of(answer),
    }


def said_by_fleet(answer: Mapping[str, Any]) -> str:
    """The outputs of an item, one below the other: text as it is, all else as JSON.

    Raises:
        Problem: the item failed.
    """
    lines: Sequence[Object] = answer["answer"]
    for line in lines:
        if "error" in line:
            raise Problem(422, f"the item failed: {line['error']}", code="item_failed")
    return "\n".join(_said(line) for line in lines)


def chat_logprobs(choice: Object) -> Object | None:
    """Of a choice, as chats have them; None: nobody asked."""
    found = choice.get("logprobs")
    if found is None:
        return None
    content = [
        {**_named(each), "top_logprobs": [_named(top) for top in each["top_logprobs"]]}
        for each in found
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(choice: Object) -> Object | None:
    """Of a choice, as completions have them; None: nobody asked."""
    found = choice.get("logprobs")
    if found is None:
        return None
    offsets, at = [], 0
    for each in found:
        offsets.append(at)
        at += len(each["token"])
    return {
        "tokens": [each["token"] for each in found],
        "token_logprobs": [each["logprob"] for each in found],
        "top_logprobs": [
            {top["token"]: top["logprob"] for top in each["top_logprobs"]} for each in found
        ],
        "text_offset": offsets,
    }


def _named(token: Object) -> Object:
    return {key: token[key] for key in ("token", "logprob", "bytes")}


def _floats(text: str) -> list[float]:
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def _said(line: Object) -> str:
    if "payload_hex" in line:
        return str(line["payload_hex"])
    payload = line["payload"]
    return payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
