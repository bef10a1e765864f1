"""Tags: logical instants, ``(step, microstep)``, compared as tuples.

Superdense time as in Ptolemy II and Lingua Franca: a step is one decode step of the inference
process, microsteps order what happens without one in between. Tags are plain tuples of ints, so
that ordering them costs nothing and a float can never slip in.
"""

Tag = tuple[int, int]

ORIGIN: Tag = (0, 0)
MICROSTEPS_MAX = 256  # From this microstep on, an effect moves to the next step (rule 2).
INFINITE_STEP = 2**62  # "No step": greater than any step that can be reached.


def next_microstep(tag: Tag) -> Tag:
    """The tag right after ``tag``: next microstep, or the next step past the bound (rule 2)."""
    step, micro = tag
    return (step, micro + 1) if micro + 1 < MICROSTEPS_MAX else (step + 1, 0)


def effect_tag(begun: Tag, fuel: int, quantum: int, delay: int) -> Tag:
    """Tag at which a turn that began at ``begun`` and burnt ``fuel`` takes effect (rule 2).

    Args:
        begun: Tag of the events that woke the agent.
        fuel: Fuel of the turn, byte charges included.
        quantum: ``fuel_per_step``: guest work that costs one step.
        delay: Least steps that a turn of one quantum or more takes.
    """
    if fuel < quantum:
        return next_microstep(begun)
    return (begun[0] + max(delay, fuel // quantum), 0)


def text(tag: Tag) -> str:
    """``12.3``: how a tag is printed and typed."""
    return f"{tag[0]}.{tag[1]}"
