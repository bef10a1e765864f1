"""Capturing: whether a model's steps are captured, by what the fleet says and what its provider is.

Only CUDA captures, and only graphs whose nodes all run there, of models whose logits are those of
the last position. What cannot be captured shows when a session is made: ONNX Runtime refuses it,
and the session that comes in its place is on another provider.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lockstep.engine.errors import ProviderMissing, UsageError
from lockstep.engine.fleet import Model
from lockstep.workers.inference import slab_file
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.growing import decoder_class
from lockstep.workers.inference.model import ModelFolder

OFF, AUTO, ON = "off", "auto", "on"
CAPTURES = "cuda"  # The provider that does.


def decoder_for(
    folder: ModelFolder,
    model: Model,
    cache: Path | None,
    *,
    rows_kept: int = 0,
    kv_file: int = slab_file.NONE,
    spin: bool = False,
    options: Any = None,
) -> Decoder:
    """The decoder of a model in the sizes of a fleet. Arguments and errors as `Decoder`."""

    def make(graphs: bool) -> Decoder:
        return decoder_class(folder.facts)(
            folder,
            model.rows_max,
            model.tokens_max,
            model.intra_op_threads,
            model.providers,
            model.require or None,
            rows_kept=rows_kept,
            kv_file=kv_file,
            cache=cache,
            spin=spin,
            options=options,
            graphs=graphs,
            candidates=model.candidates,
        )

    return capturing(model, make)


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
