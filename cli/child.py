"""Work in a process of its own: a library that crashes there is one line here.

The child gets the environment that the libraries must see before they are loaded, a session of
its own (Ctrl-C reaches us only), and JSON on standard input. Its answer is JSON on standard
output; what libraries print goes to standard error, which is kept for the message.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import traceback
from importlib import import_module
from typing import Any

from lockstep.engine.errors import EXIT_USAGE, LockstepError, UsageError

PR_SET_PDEATHSIG = 1
SAID_CHARS_MAX = 300  # Of a crashed child's standard error, in the message.


class ChildRefused(LockstepError):
    """The child refused, as it would have here: its text and its exit code."""

    def __init__(self, message: str, exit_code: int = EXIT_USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ChildFailed(Exception):
    """A bug, met in the child.

    Attributes:
        details: The child's traceback.
    """

    def __init__(self, message: str, details: str) -> None:
        super().__init__(message)
        self.details = details


def call(what: str, function: str, *args: Any, timeout_s: float | None = None) -> Any:
    """Call ``module:function`` in a new interpreter.

    Args:
        what: For messages: what is being done, to which file.
        function: Module and name; arguments and result are JSON.
        args: Arguments.
        timeout_s: Then the child is killed.

    Raises:
        ChildRefused: the function raised a `LockstepError`.
        UsageError: the child died or took too long; its last words are in the message.
        ChildFailed: the function raised anything else.
    """
    # Imported by who calls us only: it brings the workers package.
    from lockstep.workers.launch import ENVIRONMENT

    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "lockstep.cli.child", function],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
        start_new_session=True,
    )
    with process:
        try:
            answer, said = process.communicate(json.dumps(args).encode(), timeout_s)
        except subprocess.TimeoutExpired:
            raise UsageError(f"{what}: took longer than {timeout_s:g} s and was ended") from None
        finally:
            process.kill()  # Nothing to a process that has ended.
    return _result(what, process.returncode, answer, said)


def _result(what: str, status: int, answer: bytes, said: bytes) -> Any:
    if not answer:
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        words = said.decode("utf-8", "replace").strip()[-SAID_CHARS_MAX:]
        raise UsageError(f"{what}: its process ended with {how}{': ' if words else ''}{words}")
    value = json.loads(answer)
    if "refused" in value:
        raise ChildRefused(value["refused"], value["exit_code"])
    if "bug" in value:
        raise ChildFailed(f"{what}: {value['bug']}", value["details"])
    return value["result"]


def main() -> int:
    """Entry of the child."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    with open(os.dup(1), "w", encoding="ascii") as answer:
        os.dup2(2, 1)  # Libraries that print must not spoil the answer.
        json.dump(_call(sys.argv[1], json.load(sys.stdin)), answer)
    return 0


def _call(function: str, args: list[Any]) -> dict[str, Any]:
    module, _, name = function.partition(":")
    try:
        return {"result": getattr(import_module(module), name)(*args)}
    except LockstepError as error:
        return {"refused": str(error), "exit_code": error.exit_code}
    except Exception as error:
        return {"bug": f"{type(error).__name__}: {error}", "details": traceback.format_exc()}


if __name__ == "__main__":
    sys.exit(main())
