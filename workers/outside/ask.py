"""Asking a run that goes on for something, over its control socket (workers/outside/control.py)."""

import json
import os
import socket
from pathlib import Path
from typing import Any

from lockstep.engine.errors import UsageError
from lockstep.workers import folder as folders
from lockstep.workers.outside.lines import ShortPath, uid_of

ANSWER_S_MAX = 30.0  # A run that does not answer for so long is stopped, or stuck.
ANSWER_BYTES_MAX = 1 << 16


def ask(run: str | Path, request: dict[str, Any]) -> dict[str, Any]:
    """Send one request to the run in a folder.

    Args:
        run: The run folder.
        request: As workers/outside/control.py says.

    Returns:
        What it answered: ``event`` and ``tag``.

    Raises:
        UsageError: there is no run, it does not go on, or it refused; nothing was changed.
    """
    path = Path(run)
    _check_alive(path)
    try:
        answer = _exchange(path, json.dumps(request).encode() + b"\n")
    except (FileNotFoundError, ConnectionRefusedError):
        _check_alive(path)
        raise UsageError(f"{path}: the run is still starting; try again") from None
    except TimeoutError:
        raise UsageError(
            f"{path}: the run did not answer within {ANSWER_S_MAX:g} s: is its process stopped?"
        ) from None
    except OSError as error:
        raise UsageError(f"{path / folders.CONTROL}: {error.strerror or error}") from None
    if not answer.endswith(b"\n"):
        _check_alive(path)
        raise UsageError(f"{path}: the run went away without an answer")
    value: dict[str, Any] = json.loads(answer)
    if "error" in value:
        raise UsageError(f"{path}: {value['error']}")
    return value


def _exchange(run: Path, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_S_MAX)
        with ShortPath(run, folders.CONTROL) as path:
            connection.connect(path)
        if uid_of(connection) not in (os.getuid(), 0) and os.getuid():
            raise UsageError(f"{run}: another user's process listens there")
        connection.sendall(line)
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < ANSWER_BYTES_MAX:
            part = connection.recv(ANSWER_BYTES_MAX)
            if not part:
                break
            answer += part
    return answer


def _check_alive(run: Path) -> None:
    if not run.is_dir():
        raise UsageError(f"{run}: {'not a folder' if run.exists() else 'no such folder'}")
    if not (run / folders.LOCK).is_file():
        raise UsageError(f"{run}: no run in this folder")
    if folders.holder_of(run) is None:
        raise UsageError(f"{run}: the run does not go on any more; there is nothing to cancel")
