"""The deterministic core: no fork, clock, random, wasmtime or onnxruntime in here."""
