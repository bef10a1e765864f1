"""Compiled: the form of this installation, and what classes allow in either (setup.py).

mypyc knows its decorator by name wherever it is imported from, and takes it away. Interpreted it
does nothing, so that nothing of mypy's is needed to run.
"""

from typing import TYPE_CHECKING

from lockstep.engine import tag

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_):
        return lambda decorated: decorated


def is_compiled() -> bool:
    """Whether the hot modules are machine code."""
    return not (tag.__file__ or "").endswith(".py")


__all__ = ["is_compiled", "mypyc_attr"]
