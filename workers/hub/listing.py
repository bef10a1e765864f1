"""What a hub says of a repository: its files at one commit, with sizes and digests.

All of it comes from a server, so names and digests are checked before anything is made of them.
A digest is ``sha256:`` (files in large-file storage) or ``git:`` (all others: the sha1 of a git
blob).
"""

import re
from dataclasses import dataclass

from lockstep.engine.errors import EXIT_INTERRUPTED, EXIT_UNFINISHED, LockstepError, UsageError

REVISION_DEFAULT = "main"
SHA256, GIT = "sha256:", "git:"
PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_-])?"
NAME = re.compile(rf"({PART})/({PART})(?:@(\S+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(rf"{SHA256}[0-9a-f]{{64}}|{GIT}[0-9a-f]{{40}}")
UNITS = ("KiB", "MiB", "GiB", "TiB")


class PullStopped(LockstepError):
    """A pull ended before its end. What it has is kept, and the same command goes on."""

    exit_code = EXIT_UNFINISHED


class PullInterrupted(PullStopped):
    """A person stopped it."""

    exit_code = EXIT_INTERRUPTED


class Interruption(Exception):
    """A transfer ended early by what may pass: a connection that broke, a busy server."""


@dataclass(frozen=True, slots=True)
class Name:
    """What was asked for: a repository (``OWNER/NAME``) and a branch, tag or commit."""

    repository: str
    revision: str = REVISION_DEFAULT

    def __str__(self) -> str:
        shown = "" if self.revision == REVISION_DEFAULT else f"@{self.revision}"
        return f"{self.repository}{shown}"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository: its path there, its bytes, and the hub's digest of them."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of a repository at one commit, by path."""

    name: Name
    commit: str
    endpoint: str
    files: dict[str, RemoteFile]


def parse_name(text: str) -> Name:
    """``OWNER/NAME[@REVISION]``.

    Raises:
        UsageError: it is something else.
    """
    found = NAME.fullmatch(text)
    if not found:
        raise UsageError(
            f"{text!r} is no name of a repository, expected OWNER/NAME or OWNER/NAME@REVISION"
        )
    owner, name, revision = found.groups()
    return Name(f"{owner}/{name}", revision or REVISION_DEFAULT)


def remote_file(path: object, size: object, sha256: object, blob: object) -> RemoteFile:
    """A file as the hub names it.

    Args:
        path: Its path.
        size: Its bytes.
        sha256: Of its bytes, where it lies in large-file storage.
        blob: Its id as a git blob; of such a file, the id of a pointer.

    Raises:
        ValueError: the hub does not say how many bytes it has, or which.
    """
    digest = f"{SHA256}{sha256}" if sha256 else f"{GIT}{blob}"
    if not isinstance(path, str) or type(size) is not int or size < 0:
        raise ValueError(f"file {path!r:.200} has size {size!r:.40}")
    if not DIGEST.fullmatch(digest):
        raise ValueError(f"file {path!r:.200} has digest {digest:.80}")
    return RemoteFile(path, size, digest)


def sized(size: int) -> str:
    """Bytes for people."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in UNITS:
        value /= 1024
        if value < 1024 or unit == UNITS[-1]:
            break
    return f"{value:.1f} {unit}"
