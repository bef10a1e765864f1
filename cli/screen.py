"""What a person sees: standard streams that never break a run, colours, escaping, tables.

Nothing here raises because a reader went away: a run goes on without its audience, and its exit
code stays what it was. Text that came from a guest, a file or a setting is escaped before it
reaches a terminal.
"""

import io
import json
import os
import select
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from lockstep.engine.errors import UsageError

COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}


class _Stream(io.FileIO):
    """A standard stream whose reader may leave at any time."""

    def __init__(self, descriptor: int, errors: tuple[type[OSError], ...]) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._errors = errors

    def write(self, data: Any) -> int:
        """Write, or drop what nobody can read any more."""
        try:
            return super().write(data)
        except self._errors:
            return len(memoryview(data).cast("B"))


def open_streams() -> None:
    """Make standard output survive a closed pipe, and standard error everything.

    A terminal that hung up gives EIO, a full disk behind ``2>`` gives ENOSPC: neither may end a
    run that only wanted to tell something. On standard output only the closed pipe is harmless;
    a result that could not be written is an error.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Started with it closed (``>&-``): the next file opened would become it.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = text_stream(1, sys.stdout, (BrokenPipeError,))
    sys.stderr = text_stream(2, sys.stderr, (OSError,))


def text_stream(
    descriptor: int, like: TextIO | None, errors: tuple[type[OSError], ...] = (OSError,)
) -> TextIO:
    """A line-buffered text stream on a descriptor, which it never closes.

    Args:
        descriptor: Where to write.
        like: Its encoding is taken; what it cannot say is written as a backslash escape.
        errors: Errors of writing that are swallowed.
    """
    encoding = getattr(like, "encoding", None) or "utf-8"
    raw = io.BufferedWriter(_Stream(descriptor, errors))
    return io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=True)


def close_streams() -> int:
    """Flush. Returns 0, or the error number when standard output did not take everything."""
    try:
        sys.stdout.flush()
        return 0
    except OSError as error:
        # The interpreter flushes once more when it ends, and would print what we just report.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)
        return error.errno or 1


def escape(text: object) -> str:
    """Printable characters stay; control, format and surrogate characters become escapes."""
    return "".join(c if c.isprintable() else _escaped(c) for c in str(text))


def one_line(text: object) -> str:
    """`escape`, with lines joined by spaces."""
    return escape(" ".join(line.strip() for line in str(text).splitlines() if line.strip()))


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def coloured(stream: TextIO) -> bool:
    """Whether colours go to a stream: a terminal that has them, unless the person says otherwise.

    NO_COLOR goes before CLICOLOR_FORCE, and that before what the stream is.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return terminal(stream) and os.environ.get("CLICOLOR") != "0"


def terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that understands more than lines."""
    try:
        return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    except ValueError:
        return False


def paint(text: str, colour: str, stream: TextIO) -> str:
    """``text`` in a colour where the stream has colours."""
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if coloured(stream) else text


def say(text: str, *, err: bool = False) -> None:
    """One line (or several) of a result, already escaped; to standard error with ``err``.

    Raises:
        UsageError: standard output does not take it (a full disk; never a closed pipe).
    """
    stream = sys.stderr if err else sys.stdout
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as error:
        raise UsageError(f"standard output: {error.strerror}") from None


def heard() -> bool:
    """Whether standard output still has a reader: what only prints can end when nobody has."""
    poll = select.poll()
    poll.register(1, 0)  # For POLLERR alone, which a pipe has once its reader is gone.
    return not any(event & select.POLLERR for _, event in poll.poll(0))


def tell(kind: str, text: object, colour: str = "") -> None:
    """``lockstep: kind: text`` on standard error, in one line."""
    head = f"lockstep: {kind}:"
    sys.stderr.write(f"{paint(head, colour, sys.stderr) if colour else head} {one_line(text)}\n")
    sys.stderr.flush()


def say_json(value: dict[str, Any]) -> None:
    """The JSON object of ``--json``: one line of ASCII, so that any locale carries it."""
    say(json.dumps(value, default=str))


def pairs(
    rows: Sequence[tuple[str, object]],
    *,
    loud: Sequence[str] = (),
    stream: TextIO | None = None,
) -> str:
    """Label and value in two columns; an empty label goes on with the one before.

    Args:
        rows: Labels and values.
        loud: Labels of lines that are yellow where ``stream`` has colours.
        stream: Where it will be written.
    """
    width = max((len(label) for label, _ in rows), default=0)
    lines = []
    for label, value in rows:
        line = f"{label:{width}}  {escape(value)}".rstrip()
        lines.append(paint(line, "yellow", stream) if stream and label in loud else line)
    return "\n".join(lines)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain table: numbers to the right, text to the left."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(head))]
    numeric = [all(_number(row[n]) for row in rows) for n in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    )


def _cell(value: object) -> str:
    return "-" if value is None else escape(value)


def _number(value: object) -> bool:
    return value is None or isinstance(value, int | float)
