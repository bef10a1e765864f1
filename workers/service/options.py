"""Options of a service: what a person decides, beside the fleet file."""

from dataclasses import dataclass, field
from pathlib import Path

from lockstep.workers.service.limits import Limits
from lockstep.workers.service.state import Keep


@dataclass(frozen=True, slots=True)
class Http:
    """Where HTTP clients are served.

    Attributes:
        host, port: To listen at; port 0: any.
        token: That clients must have; empty: none.
        hosts: Names, in lower case, that clients may call the service by, besides localhost.
        exposed: Others on this machine can read the token's file.
    """

    host: str
    port: int
    token: str = field(default="", repr=False)
    hosts: tuple[str, ...] = ()
    exposed: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """What a person decides. Paths are absolute.

    Attributes:
        fleet: Fleet file.
        state: Folder of the service.
        socket_dir: Folder of the control socket; None: the state folder.
        seed: In place of the fleet's.
        durability: "async" or "sync".
        stop_s: What is in flight may take so long to finish when the service is stopped.
        run_items_max: After so many items a new run takes the next ones; 0: never.
        limits: How much may wait.
        keep: How much is kept.
        http: None: HTTP clients are not served.
    """

    fleet: Path
    state: Path
    socket_dir: Path | None = None
    seed: int | None = None
    durability: str = "async"
    stop_s: float = 20.0
    run_items_max: int = 20_000
    limits: Limits = field(default_factory=Limits)
    keep: Keep = field(default_factory=Keep)
    http: Http | None = None
