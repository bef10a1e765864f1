"""Who owns lanes: the service, as one run of it sees it."""

from typing import TYPE_CHECKING, Protocol

from lockstep.workers.loop import Loop
from lockstep.workers.service.asked import Asked
from lockstep.workers.service.log import Log

if TYPE_CHECKING:
    from lockstep.workers.service.lane import Lane


class Owner(Protocol):
    """The service, as a lane sees it."""

    loop: Loop
    log: Log

    def accepted(self, asked: Asked) -> None:
        """Its record is as durable as promised."""

    def refused(self, asked: Asked, why: str) -> None:
        """It was not taken, and is not in the record."""

    def answered(self, asked: Asked, lines: bytes) -> None:
        """It has come to its end; ``lines`` as of `Answers`."""

    def homeless(self, asked: list[Asked]) -> None:
        """The run takes these no more: another one has to."""

    def lost(self, lane: "Lane") -> None:
        """The lane's folder is gone, and what was accepted with it."""

    def changed(self, lane: "Lane") -> None:
        """The lane is in another state."""
