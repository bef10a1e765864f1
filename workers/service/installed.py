"""Installed files: written, compared and removed; never another one's, never one changed by hand.

The first line of each says whose it is, and the hash of what follows.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lockstep.engine.errors import UsageError
from lockstep.workers.service import unit as units
from lockstep.workers.service.unit import Unit

STAMP = "# Written by `lockstep service install`; changes belong into a drop-in."
_STAMP = re.compile(re.escape(STAMP) + r" sha256:([0-9a-f]{64})\n")
SYSTEM, SYSUSERS = Path("/etc/systemd/system"), Path("/etc/sysusers.d/lockstep.conf")


class File(NamedTuple):
    """One file.

    Attributes:
        path: Where.
        text: What; with its stamp.
    """

    path: Path
    text: str


def stamped(body: str) -> str:
    """A file's text with the line that says whose it is."""
    return f"{STAMP} sha256:{hashlib.sha256(body.encode()).hexdigest()}\n{body}"


def folder_of(for_user: bool, root: Path, config: Path) -> Path:
    """Where units lie.

    Args:
        for_user: Those of a person's own manager.
        root: Of the file system; another one than "/" for an image or a test.
        config: The person's folder of configuration.
    """
    return _below(root, config / "systemd/user" if for_user else SYSTEM)


def files_of(unit: Unit, root: Path, config: Path) -> list[File]:
    """What a service needs. Arguments as `folder_of`."""
    files = [File(folder_of(unit.for_user, root, config) / unit.file, stamped(units.text(unit)))]
    if not unit.for_user and unit.run_as == units.USER:
        files.append(File(_below(root, SYSUSERS), stamped(units.sysusers())))
    return files


def install(files: Sequence[File], dry_run: bool = False) -> list[tuple[Path, str]]:
    """Write what is not there, or not so.

    Returns:
        What became of each: "written", "unchanged"; of a dry run "would be written".

    Raises:
        UsageError: one is not ours, or cannot be written; nothing was.
    """
    wanted = [(file, _found(file.path) == file.text) for file in files]
    done = []
    for file, there in wanted:
        if not there and not dry_run:
            _write(file)
        state = "unchanged" if there else "would be written" if dry_run else "written"
        done.append((file.path, state))
    return done


def uninstall(
    name: str, for_user: bool, root: Path, config: Path, dry_run: bool = False
) -> list[tuple[Path, str]]:
    """Remove the files of a service; the user of all services only with the last of them.

    Returns:
        What became of each: "removed", "not there"; of a dry run "would be removed".

    Raises:
        UsageError: one is not ours; nothing was removed.
    """
    folder = folder_of(for_user, root, config)
    paths = [folder / f"lockstep-{name}.service"]
    others = [path for path in folder.glob("lockstep-*.service") if path not in paths]
    if not for_user and not others:
        paths.append(_below(root, SYSUSERS))
    there = [_found(path) is not None for path in paths]
    done = []
    for path, present in zip(paths, there, strict=True):
        if present and not dry_run:
            path.unlink()
        removed = "would be removed" if dry_run else "removed"
        done.append((path, removed if present else "not there"))
    return done


def _found(path: Path) -> str | None:
    """The text of a file that we wrote; None: there is none.

    Raises:
        UsageError: it is another one's, or was changed since.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    stamp = _STAMP.match(text)
    if stamp is None:
        raise UsageError(f"{path}: was not written by Lockstep; nothing was touched")
    if stamped(text[stamp.end() :]) != text:
        raise UsageError(
            f"{path}: was changed since Lockstep wrote it; nothing was touched. Move it away, or "
            "keep the changes in a drop-in (systemctl edit)"
        )
    return text


def _write(file: File) -> None:
    part = file.path.with_name(f".{file.path.name}.part")
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(file.text)
        part.chmod(0o644)
        part.replace(file.path)
    except OSError as error:
        raise UsageError(f"{file.path}: cannot be written: {error.strerror}") from None


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")
