"""What a service says: one line for each event, with a level that a journal understands.

On systemd's journal a line begins with its level, ``<4>``; elsewhere with the level's name, and
where no person looks on with the time. Fields follow the text as ``key=value``, so that lines can
be searched by them.
"""

import json
import os
import select
import time
from collections.abc import Mapping
from contextlib import suppress

LEVELS = {"error": 3, "warning": 4, "notice": 5, "info": 6}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@")


class Log:
    """Writes lines; one that nobody takes is dropped: a service must not hang on its log.

    Args:
        descriptor: Where to.
        environment: JOURNAL_STREAM says whether that is the journal.
    """

    def __init__(self, descriptor: int, environment: Mapping[str, str]) -> None:
        self._descriptor = descriptor
        self._journal = journal_listens(descriptor, environment)
        self._terminal = os.isatty(descriptor)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def error(self, text: str, **fields: object) -> None:
        """A person has to look."""
        self._say("error", text, fields)

    def warning(self, text: str, **fields: object) -> None:
        """It went on, but not as it should."""
        self._say("warning", text, fields)

    def notice(self, text: str, **fields: object) -> None:
        """What happens seldom and changes what the service does."""
        self._say("notice", text, fields)

    def info(self, text: str, **fields: object) -> None:
        """What belongs to a good day."""
        self._say("info", text, fields)

    def _say(self, level: str, text: str, fields: Mapping[str, object]) -> None:
        words = [_one_line(text), *(f"{key}={_value(value)}" for key, value in fields.items())]
        line = " ".join(words)
        if self._journal:
            line = f"<{LEVELS[level]}>{line}"
        elif self._terminal:
            line = f"lockstep: {level}: {line}"
        else:
            line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {level}: {line}"
        # A pipe that says it has room takes so many bytes without waiting.
        data = line.encode("utf-8", "backslashreplace")[: select.PIPE_BUF - 1]
        with suppress(OSError):
            if self._poll.poll(0):
                os.write(self._descriptor, data.decode("utf-8", "ignore").encode() + b"\n")


def journal_listens(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Whether a descriptor is the stream to the journal that JOURNAL_STREAM names."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def _one_line(text: str) -> str:
    joined = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in joined)


def _value(value: object) -> str:
    text = str(value)
    return text if text and set(text) <= _PLAIN else json.dumps(text)
