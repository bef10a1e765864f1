"""ONNX Runtime, imported in one place so that its telemetry is off before it is loaded.

Official Linux wheels send telemetry unless the variable is set before the import. Only the
inference process and `lockstep model` import this: onnxruntime starts a thread, and a session that
is inherited over fork segfaults when it is destroyed.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

__all__ = ["ort"]
