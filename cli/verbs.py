"""Groups of verbs that are imported when they are called, and that know what was meant."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETE = "_LOCKSTEP_COMPLETE"  # Set by a shell that asks what may follow (cli/completion.py).


class Verbs(click.Group):
    """A group whose verbs live in modules of their own, each as ``command``.

    Those modules import click and nothing heavy, so that help stays fast.

    Args:
        modules: Module of each verb.
        shorts: The line of each in the list of all, so that it is listed without being imported.
        related: Verbs that the help of a verb names at its end.
    """

    def __init__(
        self,
        *args: Any,
        modules: Mapping[str, str] | None = None,
        shorts: Mapping[str, str] | None = None,
        related: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.no_args_is_help = False
        self.modules = dict(modules or {})
        self.shorts = dict(shorts or {})
        self.related = dict(related or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are needed, not of the alphabet."""
        return [*self.modules, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in self.modules:
            return super().get_command(ctx, cmd_name)
        command: click.Command = import_module(self.modules[cmd_name]).command
        if related := self.related.get(cmd_name):
            command.epilog = f"See also: {', '.join(f'lockstep {verb}' for verb in related)}."
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As any group's, but verbs are not imported for it."""
        rows = [(name, self._short(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Likewise."""
        from click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=self._short(ctx, name)) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def _short(self, ctx: click.Context, name: str) -> str:
        if name in self.shorts:
            return self.shorts[name]
        command = self.get_command(ctx, name)
        return command.get_short_help_str() if command is not None else ""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without a verb: help, and the exit code of a usage error."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name what was meant by a verb that does not exist."""
        known, verb = self.list_commands(ctx), args[0]
        if verb in known:
            return super().resolve_command(ctx, args)
        if ctx.resilient_parsing:  # Somebody is typing it.
            return None, None, []
        from lockstep.cli.kinds import verb_for
        from lockstep.engine.settings import nearest

        meant = "" if ctx.parent else verb_for(verb)
        raise click.UsageError(f"unknown verb {verb!r}{meant or nearest(verb, known)}", ctx)
