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
from collections.abc import Sequence

import click

from lockstep.cli import interrupts, screen
from lockstep.cli.verbs import COMPLETE, Verbs
from lockstep.engine.compiled import is_compiled
from lockstep.engine.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, LockstepError
from lockstep.engine.version import VERSION

# Verbs in the order in which they are needed: the line of each in the list of all, which is shown
# without importing any, and its relatives, whom its own help names.
VERBS: dict[str, tuple[str, Sequence[str]]] = {
    "init": ("Make a fleet folder that works.", ("run", "agent")),
    "run": ("Run a fleet to its end.", ("verify", "resume", "top", "graph")),
    "verify": ("Run a run again from its folder and compare.", ("replay", "diff")),
    "replay": (
        "Play a run again from its journal, without the model.",
        ("verify", "journal"),
    ),
    "resume": ("Finish a run that was interrupted.", ("run", "top", "journal")),
    "diff": ("Show the first tag at which two runs differ.", ("fork", "verify", "journal")),
    "fork": ("Begin a new run that shares the past of another.", ("diff", "verify")),
    "sweep": ("Run a fleet with many seeds and values, into one table.", ("run", "diff")),
    "journal": ("Look at a run's journal.", ("replay", "diff")),
    "top": ("Show the agents of a run and what they do.", ("cancel", "journal")),
    "cancel": ("Cancel a run that goes on, or a part of it.", ("top", "resume")),
    "serve": ("Serve a fleet until somebody ends it.", ("service", "run")),
    "service": ("Speak to a service, or install one.", ("serve", "top")),
    "graph": ("Show who gives what to whom in a fleet.", ("run",)),
    "model": ("Pull, inspect or check a model folder.", ("doctor", "run")),
    "agent": ("Make, build, check or run one agent.", ("init", "run", "replay")),
    "doctor": ("Check what a run needs, with a cure for what is missing.", ("run", "model")),
    "profile": ("Run a fleet and show where the time went.", ("run", "top", "bench")),
    "bench": ("Measure Lockstep beside other runtimes.", ("doctor",)),
    "completion": ("Let a shell complete commands.", ("help",)),
    "help": ("Show the help of a verb.", ("completion",)),
}
MODULES = {name: f"lockstep.cli.{name}" for name in VERBS}
ENDLESS = "serve"  # Whose only end is that a person ends it: also while it is only starting.


@click.command(
    cls=Verbs,
    modules=MODULES,
    shorts={name: short for name, (short, _) in VERBS.items()},
    related={name: related for name, (_, related) in VERBS.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
)
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
        lockstep init first
        lockstep run first/fleet.toml --input first/input.jsonl
        lockstep verify runs/first-1

    `lockstep help VERB` begins with examples. With --json the last line of standard output is one
    JSON object; of a command that was refused it is {"error", "exit_code"}. Ctrl-C stops a run so
    that `lockstep resume` can go on with it, a second one at once.

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
    given = list(sys.argv[1:] if args is None else args)
    screen.open_streams()
    interrupts.listen()
    if COMPLETE in os.environ:
        return _complete(os.environ[COMPLETE])
    try:
        code = _guarded(given)
    except KeyboardInterrupt:  # One more, while the first was being told.
        code = _interrupted(given)
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
        code = _interrupted(args)
        if code == EXIT_OK:
            screen.tell("stopped", "before the service had started")
            return code
        return _refuse(args, "error", "interrupted", code)
    except OSError as error:
        return _refuse(args, "error", _of_the_world(error), EXIT_USAGE)
    except Exception as error:
        return _refuse(args, "bug", _bug(error), EXIT_BUG)


def _interrupted(args: Sequence[str]) -> int:
    """The exit code of a verb that a person stopped. The name of a verb is the first argument."""
    return EXIT_OK if args[:1] == [ENDLESS] else EXIT_INTERRUPTED


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
    if context is None:
        return text
    if isinstance(error, click.NoSuchOption) and isinstance(context.command, click.Group):
        text += "; options follow the verb"
    return f"{text} ({context.command_path} --help)"


def _of_the_world(error: OSError) -> str:
    if error.filename:
        return f"{error.filename}: {error.strerror or error}"
    if isinstance(error, FileNotFoundError) and not _has_folder():
        return "the working folder does not exist any more: change to another one"
    return error.strerror or str(error)


def _has_folder() -> bool:
    from pathlib import Path

    try:
        return Path.cwd().is_dir()
    except OSError:
        return False


def _complete(asked: str) -> int:
    from lockstep.cli.completion import answer

    return answer(cli, asked)


def _bug(error: Exception) -> str:
    """What to say of an exception that nobody expected; its traceback is kept in a file."""
    import traceback

    # A child that failed brings its own traceback.
    details = getattr(error, "details", "") or traceback.format_exc()
    cause = "".join(traceback.format_exception_only(error)).strip()
    from lockstep.cli import kept

    text = f"lockstep {VERSION}, Python {sys.version}\n{details}"
    path = kept.keep("bug", text.encode("utf-8", "backslashreplace"))
    where = f"please report it with {path}" if path else "there is no place to keep its traceback"
    return f"{cause}; {where}"


if __name__ == "__main__":
    sys.exit(main())
