"""``lockstep service uninstall``."""

from pathlib import Path

import click

from lockstep.cli.install import config, dry_option, root_option, show, user_option
from lockstep.cli.options import json_option
from lockstep.engine.errors import EXIT_OK


@click.command("uninstall", short_help="Remove what install wrote.")
@click.argument("name")
@user_option
@root_option
@dry_option
@json_option
def command(name: str, for_user: bool, root: Path, dry_run: bool, as_json: bool) -> int:
    """Remove the files that `lockstep service install` wrote. The state folder is left alone.

    \b
    Examples:
        lockstep service uninstall vote --dry-run

    Stop the service first: systemctl disable --now lockstep-vote.service.

    Exit codes: 0, 2 a file is not Lockstep's, or was changed since; nothing was removed.
    """
    from lockstep.workers.service import installed

    show(installed.uninstall(name, for_user, root, config(for_user), dry_run), as_json)
    return EXIT_OK
