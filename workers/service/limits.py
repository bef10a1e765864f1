"""Limits: how much a service lets wait, in all and for one client, and what it says then."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SEEN = 32  # Answers that the pace is taken from.
RETRY_S_MIN, RETRY_S_MAX = 0.1, 30.0  # Below the time after which the silent are sent away.
RETRY_S = 1.0  # While nothing was answered yet.


@dataclass(frozen=True, slots=True)
class Limits:
    """How many items may be unanswered at once.

    Attributes:
        waiting_max: In all.
        client_max: Of one client.
    """

    waiting_max: int = 256
    client_max: int = 64


class Occupancy:
    """Who has how many items unanswered.

    Args:
        limits: How many there may be.
        now: The monotonic clock: for advice only.

    Attributes:
        total: Unanswered items.
    """

    def __init__(self, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self.limits, self._now = limits, now
        self.total = 0
        self._clients: Counter[str] = Counter()
        self._answered_s: deque[float] = deque(maxlen=SEEN)

    def enter(self, client: str) -> None:
        """One more."""
        self.total += 1
        self._clients[client] += 1

    def leave(self, client: str, answered: bool = True) -> None:
        """One less: it was answered, or refused."""
        self.total -= 1
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]
        if answered:
            self._answered_s.append(self._now())

    def full(self, client: str) -> dict[str, Any] | None:
        """What a client hears for whom there is no room; None: there is."""
        limits, own = self.limits, self._clients[client]
        if self.total < limits.waiting_max and own < limits.client_max:
            return None
        whose = "in all" if self.total >= limits.waiting_max else f"of client {client!r}"
        return {
            "error": f"busy: too many items {whose} wait for their answer; nothing was taken",
            "code": "busy",
            "waiting": self.total,
            "waiting_max": limits.waiting_max,
            "client": client,
            "client_waiting": own,
            "client_waiting_max": limits.client_max,
            "retry_after_s": self.retry_after_s(),
        }

    def clients(self) -> dict[str, int]:
        """Unanswered items by client."""
        return dict(sorted(self._clients.items()))

    def retry_after_s(self) -> float:
        """When an eighth of the room will be free, at the pace of the last answers."""
        if len(self._answered_s) < 2:
            return RETRY_S
        each_s = (self._now() - self._answered_s[0]) / len(self._answered_s)
        wanted = max(min(self.limits.waiting_max, self.limits.client_max) // 8, 1)
        return round(min(max(each_s * wanted, RETRY_S_MIN), RETRY_S_MAX), 2)
