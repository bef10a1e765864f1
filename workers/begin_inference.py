"""The first process of inference that a run starts: of a new one, or where an old one left off."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lockstep import shm
from lockstep.engine.errors import ProviderMissing
from lockstep.engine.fleet import Fleet
from lockstep.engine.restore import restore
from lockstep.workers import room
from lockstep.workers.beginning import Beginning, Note
from lockstep.workers.crew import Crew
from lockstep.workers.fallbacks import Fallbacks
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.job import Job
from lockstep.workers.specs import inference_spec


def spec_of(job: Job, fleet: Fleet, beginning: Beginning) -> InferenceSpec:
    """What it is given, as the fleet and the record have it."""
    spec = inference_spec(fleet, repeats=bool(job.verify_of), cache=job.cache)
    agents, platform = len(fleet.agents), shm.platform_of(job.platform)
    spec = replace(spec, agents_bytes=room.agents_bytes(agents, fleet.record_bytes_max, platform))
    if beginning.past is None:
        return spec
    return replace(
        spec,
        restored=restore(beginning.past, fleet),
        past_seeds=beginning.past_seeds,
        files=beginning.files,
        got=beginning.got,
    )


def begin_inference(
    spec: InferenceSpec,
    crew: Crew,
    fallbacks: Fallbacks,
    stop: Callable[[], bool],
    note: Note,
) -> tuple[InferenceSpec, dict[str, Any]]:
    """Start it and wait until it serves.

    A run that goes on, and finds no such provider any more, goes on elsewhere if the fleet says so.
    A new one does not: nothing was computed there, and `providers` says what may take its place.

    Args:
        spec: As of `spec_of`.
        crew: Starts it.
        fallbacks: Where models have gone.
        stop, note: As of `Crew.start_inference`.

    Returns:
        What it was given, and what it said (`Loading.said`).

    Raises:
        ModelError, Diverged, GivenUp: as `Crew.start_inference`.
    """
    given = fallbacks.applied(spec)
    try:
        return given, crew.start_inference(given, stop, note)
    except ProviderMissing as error:
        if spec.restored is None or not fallbacks.failed(str(error)):
            raise
    crew.end_inference()
    return begin_inference(spec, crew, fallbacks, stop, note)
