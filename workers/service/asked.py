"""What was asked of a service: an item, from the moment that a client sent it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from lockstep.workers.outside.inlet import ITEM
from lockstep.workers.outside.lines import Answer

if TYPE_CHECKING:
    from lockstep.workers.service.lane import Lane


class Waiter(NamedTuple):
    """Somebody who asked for an item.

    Attributes:
        answer: The place for the answer.
        wait: Until the item has come to its end; else until it is accepted.
        again: The item had been asked for before.
        told: Hears of the answer's tokens, too, while it grows.
    """

    answer: Answer
    wait: bool
    again: bool
    told: bool = False


@dataclass(slots=True, eq=False)
class Asked:
    """An item that a client asked for.

    Attributes:
        id: As JSON: what it is asked for again by.
        mark: Of its line.
        client: Whose it is, for the limits; empty: asked before the service was started.
        lane: Where it is, or was, worked on.
        line: As it is sent, until it is accepted.
        kind: What stands before it then (workers/outside/inlet.py).
        number, event, tag: Once it is: its number in the run, and the outside event.
        waiters: Who hears of it.
        counted: It takes room of what may wait.
    """

    id: str
    mark: bytes
    client: str
    lane: "Lane"
    line: bytes = b""
    kind: bytes = ITEM
    number: int = 0
    event: int = 0
    tag: str = ""
    waiters: list[Waiter] = field(default_factory=list)
    counted: bool = False
