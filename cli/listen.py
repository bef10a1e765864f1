"""What a run tells while it is under way, on standard error."""

from types import TracebackType
from typing import Any

from lockstep.cli import screen
from lockstep.cli.progress import Progress
from lockstep.cli.quiet import ChildrenQuiet


class Listening:
    """A listener for `workers.api`, and the frame around a run: progress, notes, quiet children.

    Attributes:
        notes: What was noted, for ``--json``.
    """

    def __init__(self, *, show_folder: bool = True) -> None:
        self.notes: list[str] = []
        self._show_folder = show_folder
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
        if what == "note":
            self.notes.append(str(value))
            screen.tell("warning", value, "yellow")
        elif what == "run" and self._show_folder:
            screen.tell("run folder", value)
