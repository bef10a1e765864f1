"""Body of an agent process: one guest, from its machine code to its end.

The caller forks, limits, and leaves by ``os._exit`` with what `agent_main` returns. Until then
the outcome of the guest goes over the channel; what the guest did not do is an accident, and of
the turn it happened in nothing is sent.
"""

import sys
from collections.abc import Callable

from lockstep.engine.errors import LockstepBug
from lockstep.engine.record import Kind, encode
from lockstep.workers.agent.channel import Channel
from lockstep.workers.agent.guest import Guest, Leave
from lockstep.workers.agent.keeper import Keeper
from lockstep.workers.agent.spec import AgentSpec

__all__ = ["ACCIDENT_REASON_MAX", "EXIT_ACCIDENT", "EXIT_LEFT", "AgentSpec", "agent_main"]

EXIT_LEFT = 0  # The guest ended (its END was sent), or SHUTDOWN.
EXIT_ACCIDENT = 75  # EX_TEMPFAIL: repeat the agent from its events.
ACCIDENT_REASON_MAX = 500


class Accidents:
    """What went wrong where no exception can be raised: looked at before each turn's end.

    A Python exception that ctypes cannot hand on (one that comes before a callback's own ``try``)
    is printed and forgotten, and the guest goes on with a wrong result. Here it is kept.
    """

    def __init__(self) -> None:
        self.sources: list[list[BaseException]] = []
        self._lost: list[BaseException] = []
        self.sources.append(self._lost)

    def note(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """``sys.unraisablehook`` of an agent process."""
        lost = unraisable.exc_value
        self._lost.append(lost if lost is not None else RuntimeError("an exception was lost"))

    def check(self) -> None:
        """Raise the first one, if any."""
        for errors in self.sources:
            if errors:
                raise errors[0]


def agent_main(
    spec: AgentSpec,
    channel: Channel,
    confine: Callable[[], None] | None = None,
    guest: Guest | None = None,
    keeper: Keeper | None = None,
) -> int:
    """Run one agent until its guest ends or the supervisor says SHUTDOWN.

    Args:
        spec: The agent, its code and its limits.
        channel: To the supervisor. READY is sent when the module is loaded, then turn by turn
            records and END; ACCIDENT last, if it comes to that.
        guest: Made before the fork (`prepared`) from a spec that differs in name, index, replica
            and seed only; None: it is made here.
        keeper: Takes snapshots of it, if it is a guest of which that can be done.
        confine: Called when the module is loaded, before any guest code runs.

    Returns:
        The process's exit status: `EXIT_LEFT` or `EXIT_ACCIDENT`.
    """
    accidents = Accidents()
    hook = sys.unraisablehook
    sys.unraisablehook = accidents.note
    try:
        if guest is None:
            guest = Guest(spec, channel, accidents.check)
        else:
            guest.become(spec, channel, accidents.check)
        accidents.sources.append(guest.failures)
        if confine is not None:
            confine()
        channel.send(encode(Kind.READY))
        guest.run(keeper)
        return EXIT_LEFT
    except Leave:
        return EXIT_LEFT
    except BaseException as error:
        # All of them, KeyboardInterrupt and MemoryError too: rule 10, an accident has no
        # logical effect, so none may look like something that the guest did.
        _report(channel, error)
        return EXIT_ACCIDENT
    finally:
        sys.unraisablehook = hook


def prepared(spec: AgentSpec, instance: bool = False) -> Guest:
    """A guest to be given to `agent_main` in the children of this process. It cannot run here.

    Args:
        spec: Of any of them.
        instance: Make its instance, too, of a module of which no code runs by that
            (`modules.starts`). A third of what an agent's process would have of its own is shared
            then.
    """
    guest = _nobody(spec)
    return guest if not instance or guest.instantiate() else _nobody(spec)


def _nobody(spec: AgentSpec) -> Guest:
    return Guest(spec, Nowhere(), lambda: None)


class Nowhere:
    """The channel of a guest that is nobody yet."""

    def send(self, records: bytes) -> None:
        """Refused."""
        raise LockstepBug(f"{len(records)} bytes from a guest that is no agent yet")

    def receive(self) -> bytes:
        """Refused."""
        raise LockstepBug("a guest that is no agent yet waits for events")

    def exchange(self, records: bytes) -> bytes:
        """Refused."""
        self.send(records)
        return b""


def _report(channel: Channel, error: BaseException) -> None:
    try:
        lines = str(error).split("\n")
        reason = f"{type(error).__name__}: {lines[0]}"[:ACCIDENT_REASON_MAX]
        channel.send(encode(Kind.ACCIDENT, reason.encode("utf-8", "replace")))
    except BaseException:
        pass  # Without a channel the exit status has to say it.
