"""Groups of verbs that are imported when they are called, and that know what was meant."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from lockstep.engine.settings import nearest


class Verbs(click.Group):
    """A group whose verbs live in modules of their own, each as ``command``.

    Those modules import click and nothing heavy, so that help stays fast.
    """

    def __init__(self, *args: Any, modules: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.no_args_is_help = False
        self.modules = dict(modules or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are needed, not of the alphabet."""
        return [*self.modules, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in self.modules:
            return super().get_command(ctx, cmd_name)
        command: click.Command = import_module(self.modules[cmd_name]).command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without a verb: help, and the exit code of a usage error."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest verb for one that does not exist."""
        known = self.list_commands(ctx)
        if args[0] not in known:
            raise click.UsageError(f"unknown verb {args[0]!r}{nearest(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)
