"""How verbs end that run a fleet (`run`, `resume`, `fork`, ...): its summary, or how to go on."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep.cli import screen
from lockstep.cli.listen import Listening
from lockstep.engine.errors import RunStopped

if TYPE_CHECKING:
    from lockstep.workers import Run


Show = Callable[[dict[str, Any], str, list[str], bool], None]


def execute(
    call: "Callable[[Listening], Run]",
    *,
    as_json: bool,
    output: str = "",
    folder: str = "",
    kept: bool = True,
    show: Show | None = None,
) -> int:
    """Run something to its end and show what came of it.

    Args:
        call: Gets the listener.
        as_json: The summary is the last line of standard output.
        output: Where the person asked for a copy of the output.
        folder: The run's folder, where it is known beforehand.
        kept: Whether the folder is there for longer than the verb.
        show: In place of `tell`.

    Returns:
        The exit code.
    """
    from lockstep.workers.launch import Interrupted

    listening = Listening(show_folder=kept)
    try:
        with listening:
            found = _summary(call, listening, folder, kept)
        (show or tell)(found, output, listening.notes, as_json)
    except KeyboardInterrupt:  # One more, when the run had stopped already.
        raise _go_on(Interrupted("interrupted"), listening.folder, folder, kept) from None
    return int(found["exit_code"])


def _summary(
    call: "Callable[[Listening], Run]", listening: Listening, folder: str, kept: bool
) -> dict[str, Any]:
    """The summary of what is run, also of what a person stopped."""
    from lockstep.workers.launch import Interrupted

    try:
        return call(listening).summary
    except (Interrupted, RunStopped) as error:
        stopped: dict[str, Any] | None = getattr(error, "summary", None)
        if stopped is None:
            raise _go_on(error, listening.folder, folder, kept) from None
        return stopped


def tell(found: dict[str, Any], output: str, notes: list[str], as_json: bool) -> None:
    """The summary of a run, for people and as JSON."""
    from lockstep.cli import summary

    stream = sys.stderr if as_json else sys.stdout
    rows = summary.rows(found, output)
    screen.say(screen.pairs(rows, loud=summary.LOUD, stream=stream), err=as_json)
    if as_json:
        screen.say_json({**found, "notes": notes})


def _go_on(error: Exception, began: str, known: str, kept: bool) -> Exception:
    """The error of a run that nobody booked, and how to finish it.

    Args:
        error: What ended it.
        began: Its folder; empty: it never got so far.
        known: The folder of a run that was there before; empty: there is none.
        kept: Whether the folder stays.
    """
    folder, text = began or known, str(error)
    if not began and known:
        text = text.partition("; there was no run yet")[0]  # There is one, as it was.
    if not kept:
        error.args = (f"{text.partition('; the journal in')[0]}; nothing is kept",)
    elif folder and Path(folder).is_dir():
        error.args = (f"{text}; go on with: lockstep resume {folder}",)
    return error
