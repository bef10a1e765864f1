"""The inference process: ONNX models, their KV, their tokens. Nothing heavy is loaded here."""
