"""Groups: what is measured together. A module each, with ``setup`` and ``run``."""

from collections.abc import Callable
from pathlib import Path

GROUPS = (
    *("shm", "agents", "tax", "journal", "decode", "serve", "service", "guests", "gpu"),
    "profile",
)

Tell = Callable[[str], None]  # Says what goes on, to whoever waits.


def building(*makes: Callable[[Tell], Path]) -> Callable[[Tell], None]:
    """A group's ``setup``, where that needs models only.

    Args:
        makes: Make one each, as those of `models`. They raise UsageError: the packages that build
            it are not there.
    """

    def setup(tell: Tell) -> None:
        for make in makes:
            tell(f"model: {make(tell)}")

    return setup
