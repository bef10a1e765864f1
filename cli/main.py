"""Entry point of ``lockstep``: streams, signals, one line for whatever goes wrong.

A verb returns its exit code or raises; nothing but this file turns an exception into text, and no
traceback ever reaches a terminal.
"""

import signal
import sys

# Until `interrupts.listen` an interrupt ends the process as it ends any other: a traceback through
# half-made imports helps nobody. Who imports this module as a library keeps a handler of its own.
if (__name__ == "__main__" or sys.argv[0].endswith("lockstep")) and (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
import tempfile
import traceback
from collections.abc import Sequence

import click

from lockstep.cli import interrupts, screen
from lockstep.cli.verbs import Verbs
from lockstep.engine.compiled import is_compiled
from lockstep.engine.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, LockstepError
from lockstep.engine.version import VERSION

MODULES = {
    name: f"lockstep.cli.{name}"
    for name in (
        *("run", "verify", "replay", "resume", "diff", "fork", "journal"),
        *("top", "cancel", "serve", "service", "graph", "model", "agent", "doctor"),
        *("profile", "bench"),
    )
}


@click.command(cls=Verbs, modules=MODULES)
@click.version_option(
    VERSION,
    prog_name="lockstep",
    message="%(prog)s %(version)s" + " (compiled)" * is_compiled(),
)
def cli() -> None:
    """Run fleets of agents on a model of yours, reproducible bit for bit.

    \b
    Examples:
        lockstep doctor
        lockstep run fleet.toml --input items.jsonl
        lockstep verify runs/vote-1
        lockstep resume runs/vote-1

    With --json the last line of standard output is one JSON object; of a command that was refused
    it is {"error", "exit_code"}.

    Exit codes: 0 done, 2 usage, 3 finished with failures or stopped, 4 two executions differ,
    70 a bug in Lockstep, 130 interrupted.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: Without the program's name; None: those of the process.

    Returns:
        The exit code.
    """
    screen.open_streams()
    interrupts.listen()
    try:
        code = _guarded(list(sys.argv[1:] if args is None else args))
    except KeyboardInterrupt:  # One more, while the first was being told.
        code = EXIT_INTERRUPTED
    finally:
        interrupts.block()  # All is decided.
    problem = screen.close_streams()
    if problem and code == EXIT_OK:
        screen.tell("error", f"standard output: {os.strerror(problem)}", "red")
        return EXIT_USAGE
    return code


def _guarded(args: list[str]) -> int:
    try:
        # Not `cli.main`: it would catch Ctrl-C and closed pipes in ways of its own.
        with cli.make_context("lockstep", args) as context:
            return int(cli.invoke(context) or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        return _refuse(args, "error", _usage(error), EXIT_USAGE)
    except LockstepError as error:
        kind = "bug" if error.exit_code == EXIT_BUG else "error"
        return _refuse(args, kind, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _refuse(args, "error", "interrupted", EXIT_INTERRUPTED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _refuse(args, "error", f"{where}{error.strerror or error}", EXIT_USAGE)
    except Exception as error:
        return _refuse(args, "bug", _bug(error), EXIT_BUG)


def _refuse(args: list[str], kind: str, text: str, code: int) -> int:
    """Say why there is no result: one line for people, one object for who asked for it."""
    screen.tell(kind, text, "red")
    if "--json" in args[: args.index("--")] if "--" in args else "--json" in args:
        try:
            screen.say_json({"error": screen.one_line(text), "exit_code": code})
        except LockstepError:
            pass  # Standard output takes nothing: what is wrong has been said.
    return code


def _usage(error: click.ClickException) -> str:
    text = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{text} ({context.command_path} --help)" if context is not None else text


def _bug(error: Exception) -> str:
    """What to say of an exception that nobody expected; its traceback is kept in a file."""
    # A child that failed brings its own traceback.
    details = getattr(error, "details", "") or traceback.format_exc()
    cause = "".join(traceback.format_exception_only(error)).strip()
    try:
        descriptor, path = tempfile.mkstemp(prefix="lockstep-bug-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"lockstep {VERSION}, Python {sys.version}\n{details}")
        where = f"please report it with {path}"
    except OSError as problem:
        where = f"its traceback could not be kept: {problem.strerror}"
    return f"{cause}; {where}"


if __name__ == "__main__":
    sys.exit(main())
