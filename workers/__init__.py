"""Process bodies and the Python API: the only place that forks, signals, loads wasm or onnx."""

from lockstep.workers.api import Run, run
from lockstep.workers.verification import Verification, verify

__all__ = ["Run", "Verification", "run", "verify"]
