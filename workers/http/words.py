"""Words: an answer's text while it grows, as far as no further token can change it.

The tokens are those of the record. The text is the model's own (workers/inference/detokenizer.py),
and held back as long as it may be the beginning of a stop string, before which the answer will end.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from lockstep.engine.errors import LockstepError
from lockstep.workers.http.problems import Problem
from lockstep.workers.inference.detokenizer import Detokenizer
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.text import Text


class Tokenizers:
    """Of the models that are offered, each loaded when it is first needed."""

    def __init__(self) -> None:
        self._found: dict[str, asyncio.Task[Text | None]] = {}  # By fingerprint.

    async def of(self, model: dict[str, Any]) -> Text | None:
        """One model's; None: it cannot be read, so its answers come whole."""
        key = model["fingerprint"]
        if key not in self._found:
            work = asyncio.to_thread(_read, model["path"], model["file"])
            self._found[key] = asyncio.create_task(work)
        return await asyncio.shield(self._found[key])


class Words:
    """One answer's.

    Args:
        text: Of the model; None: nothing is settled before the answer is whole.
        stops: Its stop strings.
    """

    def __init__(self, text: Text | None, stops: Sequence[str]) -> None:
        self._reader = Detokenizer(text) if text is not None else None
        self._stops = tuple(stops)
        self._tokens = 0
        self._held = self._told = ""

    def push(self, at: int, ids: Sequence[int]) -> str:
        """What is settled by tokens behind the first ``at``; nothing after some were missed."""
        if self._reader is None or at != self._tokens:
            self._reader = None
            return ""
        self._tokens += len(ids)
        whole = self._held + "".join(self._reader.push(token) for token in ids)
        held = self._may_begin_stop(whole)
        self._held = whole[len(whole) - held :]
        return self._tell(whole[: len(whole) - held])

    def rest(self, whole: str) -> str:
        """What is left of the whole answer.

        Raises:
            Problem: it does not begin with what was told, so the model's files changed meanwhile.
        """
        if not whole.startswith(self._told):
            text = "the model's tokenizer is another one than that of the run: what came is not it"
            raise Problem(500, text, code="tokenizer_changed")
        return whole[len(self._told) :]

    def _tell(self, piece: str) -> str:
        self._told += piece
        return piece

    def _may_begin_stop(self, text: str) -> int:
        """Length of the longest end of a text with which a stop string begins."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        sizes = range(min(longest, len(text)), 0, -1)
        return next((n for n in sizes if any(s.startswith(text[-n:]) for s in self._stops)), 0)


def _read(path: str, file: str) -> Text | None:
    try:
        folder = ModelFolder.open(path, file)
        try:
            return Text(folder)
        finally:
            folder.close()
    except (LockstepError, OSError):
        return None
