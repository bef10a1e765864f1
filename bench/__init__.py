"""Benchmarks, and what they need: model builders and peers."""
