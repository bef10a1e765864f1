"""Counts: what a run did, in logical units."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """One writer each: the world for turns and messages, step reports for the rest."""

    turns: int = 0
    messages: int = 0  # Deliveries, those that came back included.
    tokens_in: int = 0  # Of prompts that were computed, as far as an answer shows it.
    tokens_out: int = 0
    steps: int = 0
    requests_failed: int = 0  # Refused, timed out, or an output that was not finite.
    request_failure: str = ""  # Why, of the first one.
