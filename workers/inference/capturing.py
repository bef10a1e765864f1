"""Capturing: whether a model's steps are captured, by what the fleet says and what its provider is.

Only CUDA captures, and only graphs whose nodes all run there, of models whose logits are those of
the last position. What cannot be captured shows when a session is made: ONNX Runtime refuses it,
and the session that comes in its place is on another provider.
"""

from collections.abc import Callable
from dataclasses import replace

from lockstep.engine.errors import ProviderMissing, UsageError
from lockstep.engine.fleet import Model
from lockstep.workers.inference.decoder import Decoder

OFF, AUTO, ON = "off", "auto", "on"
CAPTURES = "cuda"  # The provider that does.


def capturing(model: Model, make: Callable[[bool], Decoder]) -> Decoder:
    """A decoder that captures its steps where that is wanted and can be.

    Args:
        model: ``cuda_graphs`` is `OFF`, `AUTO` (where it can be) or `ON` (or it is refused).
        make: A decoder; whether its session is one that captures.

    Raises:
        UsageError, ProviderMissing: `ON`, and it cannot be; it says why.
    """
    wanted = model.cuda_graphs
    if wanted == OFF or CAPTURES not in model.providers:
        return make(False)
    try:
        made = make(True)
    except UsageError:
        if wanted == ON:
            raise
        return make(False)
    if made.report.running == CAPTURES:
        made.report = replace(made.report, graphs=True)
        return made
    why = "; ".join(f"{item.provider}: {item.cause}" for item in made.report.missing)
    running = made.report.running
    made.close()
    if wanted == ON:
        raise ProviderMissing(
            f'cuda_graphs = "on", but the model would run on {running}, which captures nothing'
            f'{f" ({why})" if why else ""}; set cuda_graphs = "auto" or "off", or providers = '
            '["cuda"]'
        )
    return make(False)
