"""Loading: an inference process that was forked and does not serve yet, as the supervisor hears it.

It says what people should know, then that its models are loaded, or why not, and closes the pipe
(workers/inference/process.py). A pipe that ends without either means that it died.
"""

import json
import os
import select
from collections.abc import Callable
from typing import Any

from lockstep.engine.errors import Diverged, ModelError, ProviderMissing, RunStopped
from lockstep.workers.spawn import LOOK_S, GivenUp


class Loading:
    """The reading end of the pipe.

    Attributes:
        descriptor: To wait for.
        over: It says no more.
        said: ``models`` (files, provider report, whether the slab outlives the process) and
            ``notes`` for people; None: not yet, or it died before.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.over = False
        self.said: dict[str, Any] | None = None
        self._heard = b""

    def take(self) -> list[str]:
        """Read what is there; blocks if nothing is. Notes for people.

        Raises:
            ModelError: it said that a model cannot be loaded. Its exit code is in the error.
            ProviderMissing: likewise, for want of a provider.
            Diverged: it said that what it computed is not what was recorded.
        """
        data = os.read(self.descriptor, 1 << 16)
        self.over = not data
        self._heard += data
        notes = []
        while b"\n" in self._heard:
            line, _, self._heard = self._heard.partition(b"\n")
            value: dict[str, Any] = json.loads(line)
            if "error" in value:
                raise _refusal(value["error"], value["exit_code"], value.get("provider", False))
            if "note" in value:
                notes.append(str(value["note"]))
            else:
                self.said = value
        return notes

    def wait(self, stop: Callable[[], bool], note: Callable[[str], None]) -> dict[str, Any]:
        """Block until it serves; what it said.

        Args:
            stop: Asked while waiting: whether to give up.
            note: Told what it says for people on the way.

        Raises:
            ModelError, Diverged: as `take`.
            RunStopped: it died.
            GivenUp: ``stop`` said so.
        """
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        try:
            while not self.over:
                if stop():
                    raise GivenUp("interrupted; there was no run yet")
                if poll.poll(LOOK_S * 1000):
                    for text in self.take():
                        note(text)
        finally:
            self.close()
        if self.said is None:
            raise RunStopped("the inference process died while it loaded the models; try again")
        return self.said

    def close(self) -> None:
        """Read no more of it."""
        self.over = True
        os.close(self.descriptor)


def _refusal(text: str, exit_code: int, provider: bool) -> ModelError | Diverged:
    if exit_code == Diverged.exit_code:
        return Diverged(text)
    error = ProviderMissing(text) if provider else ModelError(text)
    error.exit_code = exit_code
    return error
