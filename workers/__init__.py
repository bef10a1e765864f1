"""Process bodies and the Python API: the only place that forks, signals, loads wasm or onnx.

The API is imported when it is asked for: whoever needs one module of this package (a child, the
command line) must not load numpy with it, before its environment is set and where it would cost
more than the work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lockstep.workers.api import Run, fork, replay, resume, run
    from lockstep.workers.comparison import Comparison, diff
    from lockstep.workers.sweeps.sweep import Sweep, sweep
    from lockstep.workers.verification import Verification, verify

__all__ = [
    "Comparison",
    "Run",
    "Sweep",
    "Verification",
    "diff",
    "fork",
    "replay",
    "resume",
    "run",
    "sweep",
    "verify",
]

_HOMES = {
    **dict.fromkeys(("Run", "fork", "replay", "resume", "run"), "api"),
    **dict.fromkeys(("Comparison", "diff"), "comparison"),
    **dict.fromkeys(("Sweep", "sweep"), "sweeps.sweep"),
    **dict.fromkeys(("Verification", "verify"), "verification"),
}


def __getattr__(name: str) -> Any:
    """A name of the API, from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
