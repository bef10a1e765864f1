"""Loaded models: folder, tokenizer, session and slots of each, and that they are what they were."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from lockstep.engine.errors import LockstepError
from lockstep.engine.fleet import Model
from lockstep.engine.version import LOGIC_FLAGS
from lockstep.workers.inference import cudart, huge_pages, slab_file
from lockstep.workers.inference.capturing import decoder_for
from lockstep.workers.inference.generation import read_generation
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.proofs import Proofs
from lockstep.workers.inference.provider import ProviderReport
from lockstep.workers.inference.sameness import check_files, check_providers
from lockstep.workers.inference.selftest import proof_of, unrepeatable
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.inference.tensor_model import TensorModel
from lockstep.workers.inference.text import NO_MESSAGES, Text


class LoadedModel:
    """One model, ready to decode.

    Attributes:
        proven: Which class of equality holds for it here (selftest.py).
    """

    def __init__(
        self,
        model: Model,
        frozen_date: str,
        kv_file: int = slab_file.NONE,
        files: dict[str, str] | None = None,
        got: tuple[str, ...] | None = None,
        cache: Path | None = None,
        selftest_s: float = 0,
        logic_flags: int = LOGIC_FLAGS,
    ) -> None:
        """Read, check, and create the session.

        Args:
            model: Which, and its sizes.
            frozen_date: For its chat template.
            kv_file: As `Decoder`.
            files: As in `InferenceSpec.files`; None: whatever is there.
            got: As in `InferenceSpec.got`; None: whatever is got.
            cache: Folder of what is kept between runs; None: nothing is.
            selftest_s: Seconds that the self-test may take; 0: any number.
            logic_flags: As `Text`.

        Raises:
            ModelRejected: it cannot be loaded, or is another one than it was.
            ProviderMissing: it runs on others than it did, or cannot be captured and must be.
        """
        folder = ModelFolder.open(model.path, model.file)
        self._path = folder.path
        self.identity = folder.identity()
        if files is not None:
            check_files(files, self.identity)
        self.text = Text(folder, frozen_date, logic_flags)
        proofs = Proofs(cache / "proofs" if cache else None)
        kernels = _kernels(cache, self.identity) if set(model.providers) != {"cpu"} else None
        proof = proof_of(folder, model, proofs, selftest_s, kernels)
        self.decoder = decoder_for(
            folder, model, kernels, rows_kept=model.rows_kept, kv_file=kv_file, spin=spins(model)
        )
        if got is not None:
            check_providers(got, self.decoder.report)
        if self.decoder.report.got != proof.got:  # Its libraries came or went since.
            proof = proof_of(folder, model, Proofs(None), selftest_s, kernels)
        self.proven = proof.proven
        if self.decoder.slab.array is None and (model.rows_kept or model.prefix_copies):
            cudart.library()  # Better missed now than in the middle of a run.
        self.stop = frozenset(folder.facts.eos)
        self.tokens_max = model.tokens_max
        self.vocab = folder.facts.vocab
        self.generation = read_generation(folder.generation_config)
        folder.close()

    @property
    def report(self) -> ProviderReport:
        """Which providers were asked for and got."""
        return self.decoder.report

    @property
    def outlives(self) -> bool:
        """Whether keys and values outlive this process."""
        return self.decoder.outlives

    def notes(self) -> list[str]:
        """For people: which provider is missing, if no equality holds, if messages are refused."""
        why = self.text.template_error
        return [
            *self.report.lines(),
            *unrepeatable(self._path, self.proven, self.report),
            *([f"{self._path}: {NO_MESSAGES}: {why}"] if why else []),
        ]


def spins(model: Model) -> bool:
    """Whether a model's threads may spin: by itself only where there are cores to spare.

    On cores that agents need, spinning between the parts of a step takes them from their turns.
    """
    if model.spin != "auto":
        return model.spin == "on"
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return cores > model.intra_op_threads


AnyModel = LoadedModel | TensorModel


def load_all(spec: InferenceSpec, kv_files: Sequence[int] = ()) -> list[AnyModel]:
    """Every model of a fleet. Errors as `LoadedModel`, the model named.

    Args:
        spec: Of the inference process.
        kv_files: By model; none: their slabs die with this process.
    """
    models: list[AnyModel] = []
    slabs: dict[str, int] = {}
    before = huge_pages.mapped()
    count = len(spec.models)
    kv_files = kv_files or [slab_file.NONE] * count
    any_files, any_got = spec.files or (None,) * count, spec.got or (None,) * count
    for model, kv_file, files, got in zip(spec.models, kv_files, any_files, any_got, strict=True):
        try:
            cache = Path(spec.cache) if spec.cache else None
            if model.kind != "decoder":
                models.append(TensorModel(model, files, got, cache, spec.step_s))
                continue
            loaded = LoadedModel(
                model, spec.frozen_date, kv_file, files, got, cache, spec.step_s, spec.logic_flags
            )
            models.append(loaded)
            slabs[model.name] = loaded.decoder.slab.host_bytes
            if spec.agents_bytes:
                slab_file.check_together(slabs, spec.agents_bytes)
        except LockstepError as error:
            error.args = (f"[models.{model.name}]: {error}",)
            raise
    huge_pages.collapse_behind(before)
    return models


def _kernels(cache: Path | None, files: dict[str, str]) -> Path | None:
    """Folder for what a provider chooses by timing: chosen once for a model, then kept.

    Which choice it was decides bits, so it lies where this user's processes find it again.
    """
    if cache is None:
        return None
    name = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    folder = cache / "kernels" / name
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder
