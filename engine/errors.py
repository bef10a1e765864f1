"""The error tree, split by who can fix what went wrong.

A message says where, what was found, what was expected (with numbers) and what happened to the
data. Exceptions check the world: guests, files, models, settings. Assertions check us.
"""

from lockstep.engine.version import WORDS

EXIT_OK = 0
EXIT_USAGE = 2  # The person fixes a command, a path or a setting.
EXIT_UNFINISHED = 3  # Finished with failed items or agents, or stopped; the cause is named.
EXIT_DIVERGED = 4  # Two executions of one run differ.
EXIT_BUG = 70  # An invariant of Lockstep broke (EX_SOFTWARE).
EXIT_INTERRUPTED = 130  # SIGINT or SIGTERM; the journal is whole.


class LockstepError(Exception):
    """Base of everything Lockstep raises on purpose."""

    exit_code = EXIT_BUG


class UsageError(LockstepError):
    """The person can fix it: a command, a path, a fleet file, a model folder."""

    exit_code = EXIT_USAGE


class AgentError(LockstepError):
    """One agent stops by its own doing; the others go on."""

    exit_code = EXIT_UNFINISHED


class ProtocolError(AgentError):
    """A guest broke the record protocol: the field and the limit are in the message."""


class ModelError(LockstepError):
    """A model cannot be used."""

    exit_code = EXIT_USAGE


class ModelRejected(ModelError):
    """The model folder is refused at load, before any agent starts."""


class ProviderMissing(ModelError):
    """An execution provider was required and not got."""


class ProviderFailed(ModelError):
    """An execution provider failed in the middle of a run.

    Attributes:
        model: Index of the model.
    """

    def __init__(self, message: str, model: int) -> None:
        super().__init__(message)
        self.model = model


class RequestRejected(LockstepError):
    """A request is refused at admission; only its sender hears of it.

    Attributes:
        old: The text in runs without the logic flag WORDS (engine/version.py).
    """

    def __init__(self, text: str, old: str = "") -> None:
        super().__init__(text)
        self.old = old or text

    def said(self, logic_flags: int) -> str:
        """The text, by the rules of a run: it is part of its history."""
        return str(self) if logic_flags & WORDS else self.old


class JournalError(LockstepError):
    """The journal cannot be written or read."""

    exit_code = EXIT_UNFINISHED


class JournalFull(JournalError):
    """No room on the disk: the run stops whole, and goes on when there is some."""


class JournalCorrupt(JournalError):
    """Damage before the tail: refused, never repaired."""

    exit_code = EXIT_USAGE


class JournalVersion(JournalError):
    """Written by a version this one cannot read."""

    exit_code = EXIT_USAGE


class RunStopped(LockstepError):
    """An accident outlived its restart limit: the run is whole and resumable."""

    exit_code = EXIT_UNFINISHED


class Diverged(LockstepError):
    """Two executions differ: expected and got, at which tag."""

    exit_code = EXIT_DIVERGED


class LockstepBug(LockstepError):
    """An invariant of ours broke. Please report it."""

    exit_code = EXIT_BUG
