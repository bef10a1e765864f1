"""Loaded models: folder, tokenizer, session and slots of each, and that they are what they were."""

from collections.abc import Sequence

from lockstep.engine.errors import LockstepError, ModelRejected
from lockstep.engine.fleet import Model
from lockstep.workers.inference import cudart, slab_file
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.generation import read_generation
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.inference.text import Text


class LoadedModel:
    """One model, ready to decode."""

    def __init__(
        self,
        model: Model,
        frozen_date: str,
        kv_file: int = slab_file.NONE,
        files: dict[str, str] | None = None,
    ) -> None:
        """Read, check, and create the session.

        Args:
            model: Which, and its sizes.
            frozen_date: For its chat template.
            kv_file: As `Decoder`.
            files: As in `InferenceSpec.files`; None: whatever is there.

        Raises:
            ModelRejected: it cannot be loaded, or is another one than it was.
        """
        folder = ModelFolder.open(model.path)
        self.identity = folder.identity()
        if files is not None:
            _check_files(files, self.identity)
        self.text = Text(folder, frozen_date)
        self.decoder = Decoder(
            folder,
            model.rows_max,
            model.tokens_max,
            model.intra_op_threads,
            model.providers,
            model.require or None,
            rows_kept=model.rows_kept,
            kv_file=kv_file,
        )
        if self.decoder.slab.array is None and (model.rows_kept or model.prefix_copies):
            cudart.library()  # Better missed now than in the middle of a run.
        self.stop = frozenset(folder.facts.eos)
        self.tokens_max = model.tokens_max
        self.vocab = folder.facts.vocab
        self.generation = read_generation(folder.generation_config)
        folder.close()


def load_all(spec: InferenceSpec, kv_files: Sequence[int] = ()) -> list[LoadedModel]:
    """Every model of a fleet. Errors as `LoadedModel`, the model named.

    Args:
        spec: Of the inference process.
        kv_files: By model; none: their slabs die with this process.
    """
    models = []
    count = len(spec.models)
    kv_files = kv_files or [slab_file.NONE] * count
    for model, kv_file, files in zip(
        spec.models, kv_files, spec.files or (None,) * count, strict=True
    ):
        try:
            models.append(LoadedModel(model, spec.frozen_date, kv_file, files))
        except LockstepError as error:
            error.args = (f"[models.{model.name}]: {error}",)
            raise
    return models


def _check_files(expected: dict[str, str], found: dict[str, str]) -> None:
    """Refuse a model that was changed since: its tokens would be others.

    Raises:
        ModelRejected: with both hashes.
    """
    for name in sorted({**expected, **found}):
        then, now = expected.get(name, "no such file"), found.get(name, "no such file")
        if then != now:
            raise ModelRejected(f"{name} was changed since the run began: {then} -> {now} (sha256)")
