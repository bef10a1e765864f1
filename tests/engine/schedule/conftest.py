"""A host that writes down what a schedule does."""

from collections.abc import Callable, Sequence

import pytest

from lockstep.engine.fleet_file import parse
from lockstep.engine.schedule import Schedule, make


class Host:
    """Items as the world keeps them, without time: a log of calls."""

    def __init__(self) -> None:
        self.schedule: Schedule
        self.open: list[tuple[int, int]] = []  # (agent, item) with a request or timer.
        self.dead: list[int] = []
        self._over: list[int] = []  # Items that were finished or failed.
        self._log: list[tuple[object, ...]] = []

    def log(self) -> list[tuple[object, ...]]:
        """What was done since the last call."""
        done, self._log = self._log, []
        return done

    def deliver_item(self, agent: int, item: int, payload: bytes, peer: int, turn: int) -> None:
        if item in self._over:
            return
        if agent in self.dead:
            self.fail_item(item, "dead")
            return
        self._log.append((agent, item, payload, peer, turn))

    def finish_item(self, item: int, outputs: Sequence[tuple[int, bytes]]) -> None:
        assert item not in self._over
        self._over.append(item)
        self.schedule.forget(item)
        self._log.append(("finished", item, *outputs))

    def fail_item(self, item: int, reason: str) -> None:
        if item not in self._over:
            self._over.append(item)
            self.schedule.forget(item)
            self._log.append(("failed", item, reason))

    def has_open(self, agent: int, item: int) -> bool:
        return (agent, item) in self.open

    def is_alive(self, agent: int) -> bool:
        return agent not in self.dead


Routed = Callable[[str, str], tuple[Schedule, Host]]


@pytest.fixture
def routed() -> Routed:
    """Make a schedule from a policy and agents, one line each: ``name key = value; ...``."""

    def make_schedule(policy: str, agents: str) -> tuple[Schedule, Host]:
        text = f"[schedule]\n{policy}\n"
        for line in agents.strip().splitlines():
            name, _, settings = line.strip().partition(" ")
            lines = settings.replace(";", "\n")
            text += f"[agents.{name}]\nmodule = 'x'\n{lines}\n"
        host = Host()
        host.schedule = make(parse(text.encode(), "f.toml"), host, True)
        return host.schedule, host

    return make_schedule
