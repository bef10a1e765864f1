"""What a run tells while it is under way, on standard error."""

from types import TracebackType
from typing import Any

from lockstep.cli import screen
from lockstep.cli.progress import Progress
from lockstep.cli.quiet import ChildrenQuiet
from lockstep.engine.errors import LockstepError


class Listening:
    """A listener for `workers.api`, and the frame around a run: progress, notes, quiet children.

    Args:
        show_folder: Tell which folder the run has.
        trace_err: Lines of a trace go to standard error, not to standard output.

    Attributes:
        notes: What was noted, for ``--json``.
        folder: Of the run; empty: there is none yet.
    """

    def __init__(self, *, show_folder: bool = True, trace_err: bool = False) -> None:
        self.notes: list[str] = []
        self.folder = ""
        self._show_folder = show_folder
        self._trace_err = trace_err
        self._quiet = ChildrenQuiet()

    def __enter__(self) -> "Listening":
        self._quiet.__enter__()
        self._progress = Progress()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.clear()
        self._quiet.__exit__(kind, error, trace)

    def __call__(self, what: str, value: Any) -> None:
        """Never raises: the run must not hang on how it is shown."""
        if what == "progress":
            self._progress.update(value)
            return
        self._progress.clear()
        match what:
            case "note":
                self.notes.append(str(value))
                screen.tell("warning", value, "yellow")
            case "told":
                self.notes.append(str(value))
                screen.tell("note", value)
            case "stopping":
                screen.tell("stopping", value)
            case "expect":
                screen.tell("expected", value)
            case "trace":
                self._trace(str(value))
            case "run":
                self.folder = str(value)
                if self._show_folder:
                    screen.tell("run folder", value)

    def _trace(self, line: str) -> None:
        try:
            screen.say(screen.escape(line), err=self._trace_err)
        except LockstepError:
            pass  # Told when standard output is closed (cli/main.py).
