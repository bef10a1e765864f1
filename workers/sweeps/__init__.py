"""Sweeps: many runs of one fleet, with other seeds and other values, into one table."""
