"""``lockstep help``."""

import click

from lockstep.cli import screen
from lockstep.engine.errors import EXIT_OK


@click.command("help")
@click.argument("verbs", nargs=-1, metavar="[VERB]...")
@click.pass_context
def command(context: click.Context, verbs: tuple[str, ...]) -> int:
    """Show what `lockstep VERB --help` shows.

    \b
    Examples:
        lockstep help run
        lockstep help journal show

    Exit codes: 0, 2 when there is no such verb.
    """
    shown = context.find_root()
    for verb in verbs:
        if not isinstance(shown.command, click.Group):
            raise click.UsageError(f"{shown.command_path} has no verbs", shown)
        name, found, _ = shown.command.resolve_command(shown, [verb])
        assert found is not None, "an unknown one was refused"
        shown = click.Context(found, info_name=name, parent=shown)
    screen.say(shown.get_help())
    return EXIT_OK
