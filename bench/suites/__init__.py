"""Suites: hot paths alone, for pytest-benchmark. Not part of the tests; `make bench` runs them."""
