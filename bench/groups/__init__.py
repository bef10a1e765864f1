"""Groups: what is measured together. A module each, with ``setup`` and ``run``."""

from collections.abc import Callable

GROUPS = (
    *("shm", "agents", "tax", "journal", "decode", "serve", "service", "guests", "gpu"),
    "profile",
)

Tell = Callable[[str], None]  # Says what goes on, to whoever waits.
