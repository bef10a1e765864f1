"""``lockstep completion``: what a shell has to know, and what it is told while somebody types.

The script comes from click, which finds verbs, options and choices by itself; paths and names
that it cannot know are in cli/kinds.py. A shell asks by starting the program with a variable set.
"""

import click
from click.shell_completion import ShellComplete, get_completion_class, shell_complete

from lockstep.cli import screen
from lockstep.cli.verbs import COMPLETE
from lockstep.engine.errors import EXIT_OK

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> int:
    """Print the script that lets a shell complete verbs, options, runs, models and agents.

    \b
    Examples:
        eval "$(lockstep completion bash)"      in ~/.bashrc
        eval "$(lockstep completion zsh)"       in ~/.zshrc, behind compinit
        lockstep completion fish > ~/.config/fish/completions/lockstep.fish

    Nothing heavy is loaded while you type: only folders are looked at, and a run's fleet file.

    Exit codes: 0, 2 for another shell.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click has had all of them since 8.0"
    made = kind(context.find_root().command, {}, "lockstep", COMPLETE)
    # Not bash's own method, which would start a bash to look at its version.
    screen.say(ShellComplete.source(made).rstrip("\n"))
    return EXIT_OK


def answer(cli: click.Command, asked: str) -> int:
    """Answer a shell. Whatever goes wrong, nothing is offered and nothing said: somebody types.

    Args:
        cli: The command line.
        asked: Value of `COMPLETE`.

    Returns:
        The exit code.
    """
    try:
        return shell_complete(cli, {}, "lockstep", COMPLETE, asked)
    except (Exception, KeyboardInterrupt):
        return 1
