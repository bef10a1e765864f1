"""Schedules: which agent gets an item next. All policies route over the same tags."""

from lockstep.engine.fleet import Fleet
from lockstep.engine.schedule.base import Host, Schedule
from lockstep.engine.schedule.calls import Calls
from lockstep.engine.schedule.dag import Dag
from lockstep.engine.schedule.events import Events
from lockstep.engine.schedule.round_robin import RoundRobin

__all__ = ["Host", "Schedule", "make"]


def make(fleet: Fleet, host: Host, has_input: bool) -> Schedule:
    """The fleet's schedule.

    Raises:
        UsageError: policy "events" with input and no agent that takes it.
    """
    if fleet.caller is not None:
        return Calls(fleet, host, _policy(fleet.routed, host, has_input=False))
    return _policy(fleet, host, has_input)


def _policy(fleet: Fleet, host: Host, has_input: bool) -> Schedule:
    match fleet.schedule.policy:
        case "dag":
            return Dag(fleet, host)
        case "round-robin":
            return RoundRobin(fleet, host)
        case _:
            return Events(fleet, host, has_input)
