"""Tensor models: any ONNX graph with named tensors in and out, one run a request, in ticket order.

No request shares a run with another one, so nothing but its own inputs decides its bits: if it
gives the same ones twice at all, which is tried (tensor_trial.py).
"""

from pathlib import Path
from typing import Any

import numpy as np

from lockstep.engine.errors import ModelRejected, RequestRejected
from lockstep.engine.fleet import Model
from lockstep.workers.inference.embedder import Embedder
from lockstep.workers.inference.fields import wrong
from lockstep.workers.inference.graph import Port
from lockstep.workers.inference.proofs import Proofs
from lockstep.workers.inference.provider import open_session
from lockstep.workers.inference.sameness import check_files, check_providers
from lockstep.workers.inference.selftest import unrepeatable
from lockstep.workers.inference.tensor_folder import TOKENIZER, TensorFolder
from lockstep.workers.inference.tensor_request import TensorRequest
from lockstep.workers.inference.tensor_trial import proven
from lockstep.workers.inference.tensors import (
    Array,
    read_inputs,
    write_outputs,
    write_tensor,
)

Runs = list[dict[str, Array]]  # Inputs of each run of the graph that a request needs.
ERROR_CHARS_MAX = 200


class TensorModel:
    """One such model with its session. Created after the fork, never before.

    Attributes:
        identity: File name to sha256.
        report: Which providers were asked for and got.
        proven: "run" if the same inputs gave the same bits, "none" if not; empty: not tried.
        outlives: Nothing is kept between requests, so nothing is lost with the process.
        inputs, outputs: Ports of the graph.
    """

    outlives = True

    def __init__(
        self,
        model: Model,
        files: dict[str, str] | None = None,
        got: tuple[str, ...] | None = None,
        cache: Path | None = None,
        selftest_s: float = 0,
    ) -> None:
        """Read, check, create the session, and try it.

        Args:
            model: Which.
            files, got: As in `InferenceSpec`; None: whatever is there.
            cache, selftest_s: As `LoadedModel`.

        Raises:
            ModelRejected: the folder or its graph cannot be used, or is another one than it was.
            ProviderMissing: a required provider was not got, or other ones than before.
        """
        folder = TensorFolder.open(model.path, model.file)
        try:
            self.identity = folder.identity()
            if files is not None:
                check_files(files, self.identity)
            self.inputs: tuple[Port, ...] = folder.graph.inputs
            self.outputs: tuple[Port, ...] = folder.graph.outputs
            self._embedder: Embedder | None = None
            self._why_not = f"the folder has no {TOKENIZER}"
            if folder.has(TOKENIZER):
                self._embed_with(folder)
            self.session, self.report = open_session(
                folder, model.providers, model.require or None, model.intra_op_threads
            )
            if got is not None:
                check_providers(got, self.report)
            proofs = Proofs(cache / "proofs" if cache else None)
            self.proven = proven(folder, model, self.session, self.report, proofs, selftest_s)
            self._path = folder.path
        finally:
            folder.close()

    def _embed_with(self, folder: TensorFolder) -> None:
        """A folder may have a tokenizer and be no text model: tensors work all the same."""
        try:
            self._embedder = Embedder(folder)
        except ModelRejected as error:
            self._why_not = str(error)

    def prepare(self, request: TensorRequest) -> Runs:
        """What a request needs run, checked.

        Raises:
            RequestRejected: an input, a name or a text cannot be used; it is named.
        """
        if request.inputs is None:
            if self._embedder is None:
                raise RequestRejected(f"input: the model embeds no texts: {self._why_not}")
            return [self._embedder.inputs(text) for text in request.texts]
        known = [port.name for port in self.outputs]
        for name in request.outputs:
            if name not in known:
                raise wrong("outputs: ", name, f" is no output, only: {', '.join(known)}")
        return [read_inputs(request.inputs, self.inputs)]

    def answer(self, request: TensorRequest, runs: Runs) -> dict[str, Any]:
        """Run the graph and give the answer's own fields, JSON-able.

        Raises:
            RequestRejected: the graph refused the inputs, or an output cannot be delivered.
        """
        if request.inputs is None:
            return self._vectors(request, runs)
        names = list(request.outputs) or [port.name for port in self.outputs]
        outputs = dict(zip(names, self._run(names, runs[0]), strict=True))
        try:
            return {"outputs": write_outputs(outputs, request.encoding)}
        except ValueError as error:
            raise RequestRejected(str(error)) from None

    def _vectors(self, request: TensorRequest, runs: Runs) -> dict[str, Any]:
        assert self._embedder is not None
        vectors = []
        for run in runs:
            (output,) = self._run([self._embedder.output], run)
            vector = self._embedder.vector(output, request.dimensions)
            if not np.isfinite(vector).all():
                raise RequestRejected("the model's output has a NaN or Inf")
            vectors.append(write_tensor(vector, request.encoding, "embedding"))
        tokens = sum(run["input_ids"].size for run in runs)
        return {"embeddings": vectors, "usage": {"prompt_tokens": int(tokens)}}

    def _run(self, names: list[str], inputs: dict[str, Array]) -> list[Array]:
        try:
            found: list[Array] = self.session.run(names, inputs)
        except Exception as error:  # Its exceptions have no common base below Exception.
            why = " ".join(str(error).split())[:ERROR_CHARS_MAX]
            raise RequestRejected(f"the model refused its inputs: {why}") from None
        return found

    def notes(self) -> list[str]:
        """For people: which provider is missing, and if no equality holds."""
        return [*self.report.lines(), *unrepeatable(self._path, self.proven, self.report)]

    def close(self) -> None:
        """Destroy the session."""
        self.session = None
