"""Units: what systemd has to know to keep a service alive, and to keep it in its place.

Text only: workers/service/installed.py puts it on a disk. Nothing here asks systemd for anything.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet

USER = "lockstep"
HOMES = ("/home", "/root", "/run/user")
TEMPORARY = ("/tmp", "/var/tmp")  # PrivateTmp puts empty ones in their place.
TASKS_MIN = 512
START_S, WATCHDOG_S, RESTART_S = 180, 60, 2
# What systemd would not take it ignores with a line in a log; a line break would begin a directive
# of its own.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,48}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}|[0-9]{1,9}")
_MEMORY = re.compile(r"[1-9][0-9]{0,18}|[1-9][0-9]{0,5}[KMGT]|([1-9][0-9]?|100)%|infinity")
_PLAIN = re.compile(r"[\w@%+=:,./$-]+", re.ASCII)  # A word that needs no quotes.
STOP_MARGIN_S = 60  # For supervisors that are asked to stop, and are killed if they do not.


@dataclass(frozen=True, slots=True)
class Unit:
    """One service of systemd.

    Attributes:
        name: The unit is ``lockstep-NAME.service``.
        program: What is executed, up to its arguments.
        fleet: Fleet file, absolute.
        arguments: Of `lockstep serve`, besides.
        for_user: It is one of a person's own manager, not of the system's.
        run_as: User of a system's.
        stop_s: As given to `lockstep serve`.
        memory_max: As systemd has it.
        tasks_max: Processes and threads.
        devices: It needs some, for a GPU.
        network: Its tools may need it, or it serves HTTP clients.
        home: What it has lies in somebody's home folder.
    """

    name: str
    program: tuple[str, ...]
    fleet: Path
    arguments: tuple[str, ...] = ()
    for_user: bool = False
    run_as: str = USER
    stop_s: float = 20.0
    memory_max: str = "80%"
    tasks_max: int = TASKS_MIN
    devices: bool = False
    network: bool = False
    home: bool = False

    def __post_init__(self) -> None:
        """Refuse what systemd would read in another way.

        Raises:
            UsageError: a value is not what it should be.
        """
        for what, value, pattern, expected in (
            ("name", self.name, _NAME, "1 to 48 of A-Z a-z 0-9 _ -"),
            ("--as", self.run_as, _USER, "the name or the number of a user"),
            ("--memory-max", self.memory_max, _MEMORY,
             "bytes, such as 4000000000 or 4G (K, M, G, T), 1% to 100%, or infinity"),
        ):  # fmt: skip
            if not pattern.fullmatch(value):
                raise UsageError(f"{what} is {value!r:.80}, expected {expected}")

    @property
    def file(self) -> str:
        """Name of the unit's file."""
        return f"lockstep-{self.name}.service"

    @property
    def folder(self) -> str:
        """Below the manager's folders of state and of run time."""
        return f"lockstep/{self.name}"


def unit_of(
    name: str,
    program: Sequence[str],
    path: Path,
    fleet: Fleet,
    needed: Sequence[str],
    for_user: bool = False,
) -> Unit:
    """The unit that a fleet needs.

    Args:
        name: Of the service.
        program: As `Unit`.
        path: Of the fleet file.
        fleet: What it says.
        needed: Paths that have to be readable.
        for_user: As `Unit`.

    Raises:
        UsageError: the name is none, or what is needed would not be there.
    """
    hidden = [place for place in needed if _lies_in(TEMPORARY, place)]
    if hidden and not for_user:
        raise UsageError(
            f"{hidden[0]}: a service of the system has a {' and a '.join(TEMPORARY)} of its own "
            "and would not find it: move it to a place that stays, or use --user"
        )
    return Unit(
        name=name,
        program=tuple(program),
        fleet=path,
        for_user=for_user,
        tasks_max=max(TASKS_MIN, 2 * len(fleet.agents) + TASKS_MIN),  # Two runs, at a reload.
        devices=any(provider != "cpu" for model in fleet.models for provider in model.providers),
        network=bool(fleet.tools),
        home=any(_lies_in(HOMES, place) for place in needed),
    )


def text(unit: Unit) -> str:
    """The unit's file."""
    lines = [
        "[Unit]",
        f"Description=Lockstep service {unit.name}",
        "Documentation=man:systemd.service(5)",
        "StartLimitIntervalSec=300",
        "StartLimitBurst=5",
        "",
        "[Service]",
        *_life(unit),
        "",
        *_places(unit),
        "",
        *_limits(unit),
        "",
        *_confinement(unit),
        *([] if unit.for_user else ["", *_system_confinement(unit)]),
        "",
        "[Install]",
        f"WantedBy={'default.target' if unit.for_user else 'multi-user.target'}",
    ]
    return "\n".join(lines) + "\n"


def sysusers() -> str:
    """The user that system services run as."""
    return f'u {USER} - "Lockstep services" /var/lib/lockstep\n'


def _life(unit: Unit) -> list[str]:
    # Where the state lies and where the socket, `serve` takes from what systemd made for it.
    stop = ("--stop-s", f"{unit.stop_s:g}")
    words = (*unit.program, "serve", str(unit.fleet), *stop, *unit.arguments)
    return [
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={_command(words)}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "# Usage, other bits than recorded, a bug: the next start would end as this one did.",
        "RestartPreventExitStatus=2 4 70",
        "Restart=on-failure",
        f"RestartSec={RESTART_S}",
        f"TimeoutStartSec={START_S}",
        f"TimeoutStopSec={round(unit.stop_s) + STOP_MARGIN_S}",
        f"WatchdogSec={WATCHDOG_S}",
        "# The service stops its runs itself; what is left of them after it is killed.",
        "KillMode=mixed",
        "# A child that the kernel ends for memory is brought back by its run.",
        "OOMPolicy=continue",
    ]


def _places(unit: Unit) -> list[str]:
    lines = [
        f"StateDirectory={unit.folder}",
        "StateDirectoryMode=0700",
        f"RuntimeDirectory={unit.folder}",
        "RuntimeDirectoryMode=0700",
        "UMask=0077",
        "RemoveIPC=no",
    ]
    if unit.for_user:
        return lines
    return [
        f"User={unit.run_as}",
        *lines,
        "CacheDirectory=lockstep",
        "CacheDirectoryMode=0700",
        "Environment=XDG_CACHE_HOME=%C",
    ]


def _limits(unit: Unit) -> list[str]:
    return [
        f"TasksMax={unit.tasks_max}",
        f"MemoryMax={unit.memory_max}",
        "LimitNOFILE=65536",
        "# What agents and people said would lie in a core file.",
        "LimitCORE=0",
    ]


def _confinement(unit: Unit) -> list[str]:
    families = "AF_UNIX AF_INET AF_INET6" if unit.network else "AF_UNIX"
    return [
        "# No MemoryDenyWriteExecute: agents are compiled when they are loaded.",
        "NoNewPrivileges=yes",
        "LockPersonality=yes",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        f"RestrictAddressFamilies={families}",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallErrorNumber=EPERM",
    ]


def _system_confinement(unit: Unit) -> list[str]:
    lines = [
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "ProtectSystem=strict",
        f"ProtectHome={'read-only' if unit.home else 'yes'}",
        "PrivateTmp=yes",
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "ProtectProc=invisible",
    ]
    if not unit.devices:
        lines += ["PrivateDevices=yes", "DevicePolicy=closed"]
    else:
        lines += ["# No PrivateDevices: a model runs on a GPU."]
    if not unit.network:
        lines += ["PrivateNetwork=yes", "IPAddressDeny=any"]
    return lines


def _command(words: Sequence[str]) -> str:
    """A command line of systemd, which looks for variables in all words but the first."""
    program, *arguments = words
    if any(character in program for character in "'\"\\"):
        raise UsageError(f"{program}: systemd takes no program with quotes or backslashes in it")
    return " ".join([_quoted(program), *(_quoted(word.replace("$", "$$")) for word in arguments)])


def _quoted(word: str) -> str:
    """A word as systemd reads it: ``%`` and backslashes mean something, also between quotes."""
    if any(not character.isprintable() for character in word):
        raise UsageError(f"{word!a}: a unit file cannot hold it")
    word = word.replace("%", "%%")
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _lies_in(folders: Sequence[str], path: str) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
