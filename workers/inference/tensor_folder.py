"""A folder with a graph that is no decoder: read, checked and hashed before anything of it runs.

The ONNX file is the one that the fleet names, else ``model.onnx`` or ``onnx/model.onnx``. A folder
with a tokenizer.json beside it holds a text model, which can be asked for embeddings: it is laid
out as sentence-transformers does (modules.json, N_Pooling/config.json).
"""

from pathlib import Path
from typing import Any

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.blob import Blob, placed
from lockstep.workers.inference.config import read_json
from lockstep.workers.inference.graph import Graph, Port, read_graph
from lockstep.workers.inference.tensors import DTYPES

FILES = ("model.onnx", "onnx/model.onnx")  # In this order.
TOKENIZER = "tokenizer.json"
MODULES = "modules.json"  # Of sentence-transformers.
POOLING = "1_Pooling/config.json"
SENTENCE_CONFIG = "sentence_bert_config.json"
CONFIG = "config.json"
OPTIONAL = (TOKENIZER, MODULES, POOLING, SENTENCE_CONFIG, CONFIG)
FILES_MAX = 256
GRAPH_BYTES_MAX = 1 << 31  # Of protobuf itself.


class TensorFolder:
    """An opened folder. Made by `open`; `close` lets go of the mapped weights.

    Attributes:
        path: Real path of the folder.
        filename: The ONNX file, relative to it.
        graph: Ports, files and operators of it.
    """

    def __init__(self, path: Path, file: str) -> None:
        self.path = path
        self._blobs: dict[str, Blob] = {}
        try:
            with placed(path):
                self._read(file)
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: str | Path, file: str = "") -> "TensorFolder":
        """Read and check a folder.

        Raises:
            ModelRejected: no such folder or file, not ONNX, a file outside the folder, or a port
                of a type that no tensor of a request can have.
        """
        root = Path(path)
        if not root.is_dir():
            raise ModelRejected(f"{root}: no such folder")
        return cls(root.resolve(), file)

    def _read(self, file: str) -> None:
        self.filename = file or next((f for f in FILES if (self.path / f).exists()), "")
        if not self.filename:
            raise ModelRejected(f"{self.path}: none of {', '.join(FILES)} in it; name its `file`")
        data = self._add(self.filename).data
        if len(data) > GRAPH_BYTES_MAX:
            raise ModelRejected(f"{self.filename}: {len(data)} bytes, at most {GRAPH_BYTES_MAX}")
        self.graph: Graph = read_graph(bytes(data), self.filename)
        if len(self.graph.files) > FILES_MAX:
            raise ModelRejected(
                f"{self.filename}: names {len(self.graph.files)} files, at most {FILES_MAX}"
            )
        for port in (*self.graph.inputs, *self.graph.outputs):
            _check(port, self.filename)
        parent = Path(self.filename).parent
        self._data = [(name, str(parent / name)) for name in self.graph.files]
        for _, name in self._data:
            self._add(name)
        for name in OPTIONAL:
            if (self.path / name).exists():
                self._add(name)

    def _add(self, name: str) -> Blob:
        if name not in self._blobs:
            self._blobs[name] = Blob(self.path, name)
        return self._blobs[name]

    def has(self, name: str) -> bool:
        """Whether one of the optional files is there."""
        return name in self._blobs

    def text(self, name: str) -> str:
        """An optional file that is there, as text.

        Raises:
            ModelRejected: not UTF-8.
        """
        try:
            return bytes(self._blobs[name].data).decode()
        except UnicodeDecodeError as error:
            raise ModelRejected(f"{name}: not UTF-8 at byte {error.start}") from None

    def json(self, name: str) -> dict[str, Any]:
        """An optional file as a JSON object; empty where it is not there."""
        return read_json(bytes(self._blobs[name].data), name) if self.has(name) else {}

    def identity(self) -> dict[str, str]:
        """File name to sha256, sorted, of every file that can change a bit."""
        return {name: self._blobs[name].sha256 for name in sorted(self._blobs)}

    def weights(self) -> tuple[bytes, list[str], list[Any], list[int]]:
        """The ONNX file and what it names: names, mapped contents, sizes. Valid until `close`."""
        mapped = [self._blobs[name].data for _, name in self._data]
        names = [name for name, _ in self._data]
        graph = bytes(self._blobs[self.filename].data)
        return graph, names, mapped, [len(data) for data in mapped]

    def unchanged(self) -> None:
        """Raise ModelRejected when a file was written to since it was opened."""
        for blob in self._blobs.values():
            blob.unchanged()

    def close(self) -> None:
        """Unmap and close all files; hashes that were computed stay. Twice is harmless."""
        for blob in self._blobs.values():
            blob.close()


def _check(port: Port, name: str) -> None:
    if port.dtype not in DTYPES:
        raise ModelRejected(f"{name}: {port} is not supported, only {', '.join(DTYPES)}")
