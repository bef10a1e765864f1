"""The ledger: everything a run leaves on disk while it lives, in the order that was promised.

Entries go to the journal and the digests; what a person sees (output lines) is written only
after the entries before it are as durable as the level says.
"""

import os
from typing import Any

from lockstep.engine import actions
from lockstep.engine import tag as tags
from lockstep.engine.digest import Digest, identity_record
from lockstep.engine.effects import LOG_LEVELS
from lockstep.engine.history import Entry
from lockstep.engine.journal import JournalWriter
from lockstep.engine.journal import format as journal_format
from lockstep.engine.record import Kind, encode
from lockstep.engine.strict_json import dumps
from lockstep.workers.folder import JOURNAL, OUTPUT, RunFolder
from lockstep.workers.journal_file import DELAY_S, JournalFile, write_all


class Ledger:
    """Journal, digests, output and logs of one run. One writer: the supervisor.

    Attributes:
        digest: Of everything appended so far.
        entries: How many were.
        run_id: 16 random bytes: tells two journals apart, decides nothing.
    """

    def __init__(
        self,
        folder: RunFolder,
        durability: str,
        identity: dict[str, Any],
        environment: dict[str, Any],
    ) -> None:
        """Begin the journal with what the run is and what it runs on.

        Raises:
            OSError, JournalError: the folder cannot be written.
        """
        self._folder = folder
        self.run_id = os.urandom(16)
        record = identity_record(identity)
        self.digest = Digest(record)
        self._file = JournalFile(folder.path / JOURNAL, durability)
        self._journal = JournalWriter(self._file, self.run_id)
        self._journal.append(journal_format.IDENTITY, record)
        body = encode(Kind.ENVIRONMENT, dumps(environment))
        self._journal.append(journal_format.ENVIRONMENT, body)
        self._file.reveal()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._output = os.open(folder.path / OUTPUT, flags, 0o600)
        self._lines: list[bytes] = []
        self._kept: list[bytes] = []
        self.entries = 0

    def keep(self, record: bytes) -> None:
        """A record that is no history; it lies before whatever is appended after it."""
        self._kept.append(record)

    def append(self, entry: Entry) -> None:
        """The next entry of history."""
        self._write_kept()
        self.entries += 1
        self.digest.add(entry)
        self._journal.append(journal_format.HISTORY, entry.body)

    def output(self, line: bytes) -> None:
        """A line that becomes visible at the next `reveal`."""
        self._lines.append(line + b"\n")

    def log(self, agent: str, log: actions.Log) -> None:
        """An agent's log line."""
        stream = ("log", "stdout", "stderr")[log.stream]
        text = log.text.decode("utf-8", "replace")
        # Control characters would run in the terminal of whoever reads the file.
        safe = "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text)
        self._folder.log(agent, f"{tags.text(log.tag)} {LOG_LEVELS[log.level]} {stream}: {safe}\n")

    def timeout_s(self) -> float:
        """How long the loop may block before the next `reveal`; for ever: -1."""
        return DELAY_S if self._file.behind else -1.0

    def reveal(self, visible: bool = False) -> None:
        """Make the entries durable as promised, then show what they allow.

        Args:
            visible: Something else than output lines becomes visible after this.

        Raises:
            OSError, JournalError: nothing more may be shown; what was acknowledged stands.
        """
        self._write_kept()
        self._file.reveal(visible or bool(self._lines))
        if self._lines:
            write_all(self._output, b"".join(self._lines))
            self._lines = []
        self._folder.flush_logs()

    def close(self) -> None:
        """Write and sync what is left."""
        try:
            self._write_kept()
            self._file.close()
            self._folder.flush_logs()
        finally:
            os.close(self._output)

    def _write_kept(self) -> None:
        if self._kept:
            kept, self._kept = self._kept, []
            self._journal.append(journal_format.KEPT, b"".join(kept))
