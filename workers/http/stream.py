"""Streams: an answer in pieces, as server-sent events in OpenAI's objects."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from lockstep.workers.http import answers
from lockstep.workers.http.answers import Head, Object
from lockstep.workers.http.problems import of_service
from lockstep.workers.http.words import Words

END = b"data: [DONE]\n\n"
Lines = AsyncIterator[dict[str, Any]]


def event(value: Object) -> bytes:
    """One server-sent event."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


class Pieces:
    """The objects of one stream.

    Args:
        head: What all of them have in common.
        is_chat: They are of a chat; else of a completion.
        usage: The last one says what was used, all others that they do not.
    """

    def __init__(self, head: Head, is_chat: bool, usage: bool) -> None:
        kind, prefix = ("chat.completion.chunk", "chatcmpl") if is_chat else (
            "text_completion", "cmpl")  # fmt: skip
        self._head = head.of(kind, prefix) | ({"usage": None} if usage else {})
        self._is_chat, self.usage = is_chat, usage

    def begin(self) -> list[Object]:
        """Who speaks."""
        if not self._is_chat:
            return []
        return [self._of(0, {"delta": {"role": "assistant", "content": ""}})]

    def text(self, index: int, text: str, choice: Object | None = None) -> Object:
        """More text; with log-probabilities, of the whole choice, where it is its last."""
        probed = choice or {}
        if self._is_chat:
            more: Object = {"delta": {"content": text}, "logprobs": answers.chat_logprobs(probed)}
        else:
            more = {"text": text, "logprobs": answers.completion_logprobs(probed)}
        return self._of(index, more)

    def end(self, index: int, reason: str) -> Object:
        """A choice is whole."""
        more: Object = {"delta": {}} if self._is_chat else {"text": ""}
        return self._of(index, {**more, "finish_reason": reason})

    def used(self, usage: Object | None) -> Object:
        """What was used."""
        return {**self._head, "choices": [], "usage": usage}

    def _of(self, index: int, more: Object) -> Object:
        choice = {"index": index, "logprobs": None, "finish_reason": None, **more}
        return {**self._head, "choices": [choice]}


async def of_model(
    pieces: Pieces, words: Words, lines: Lines, used: Callable[[Object], None]
) -> AsyncIterator[Object]:
    """The stream of a call to a model; ``used`` is told of its result.

    Raises:
        Problem: it was not answered; what came before stands.
    """
    for each in pieces.begin():
        yield each
    async for line in lines:
        if "ids" in line:
            if piece := words.push(line["at"], line["ids"]):
                yield pieces.text(0, piece)
            continue
        if "error" in line:
            raise of_service(line)
        result = answers.result_of(line)
        used(result)
        for each in _ends(pieces, words, result):
            yield each
        last = pieces.used(answers.usage_of(result))
        if pieces.usage:
            yield {**last, "lockstep": answers.place_of(line, result)}


async def of_fleet(pieces: Pieces, lines: Lines) -> AsyncIterator[Object]:
    """The stream of a fleet's item, whose output comes in one piece. Errors as `of_model`."""
    async for line in lines:
        if "error" in line:
            raise of_service(line)
        said = answers.said_by_fleet(line)
        for each in (*pieces.begin(), pieces.text(0, said), pieces.end(0, "stop")):
            yield each
        if pieces.usage:
            yield {**pieces.used(None), "lockstep": answers.place_of(line)}


def _ends(pieces: Pieces, words: Words, result: Object) -> list[Object]:
    found = answers.choices_of(result)
    ends = []
    for choice in found:
        index, text = choice["index"], choice["text"]
        rest = words.rest(text) if len(found) == 1 else text
        if rest or choice.get("logprobs"):
            ends.append(pieces.text(index, rest, choice))
        ends.append(pieces.end(index, choice["finish_reason"]))
    return ends
