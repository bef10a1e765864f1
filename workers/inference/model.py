"""A model folder, read and checked as a whole before anything of it runs.

Layout of onnxruntime-genai's model builder: genai_config.json, an ONNX file with the files it
names, tokenizer.json, tokenizer_config.json and a chat template. Importing this loads no
onnxruntime, so the supervisor may hash and check models.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.blob import Blob
from lockstep.workers.inference.config import CONFIG, ModelFacts, read_config, read_json
from lockstep.workers.inference.graph import Graph, read_graph
from lockstep.workers.inference.signature import check_signature

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
GENERATION_CONFIG = "generation_config.json"  # Optional; named in the identity where it is.
OPTIONAL = (TEMPLATE, GENERATION_CONFIG)
FILES_MAX = 256  # External data files that one graph may name.
TEXT_BYTES_MAX = 256 << 20
GRAPH_BYTES_MAX = 1 << 31  # Of protobuf itself.


class ModelFolder:
    """An opened model folder. Made by `open`; `close` lets go of the mapped weights.

    Attributes:
        path: Real path of the folder.
        facts: What the decoder needs to know.
        graph: Ports, files and operators of the ONNX file.
        tokenizer_config: tokenizer_config.json as parsed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._blobs: dict[str, Blob] = {}
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: str | Path) -> "ModelFolder":
        """Read and check a folder.

        Raises:
            ModelRejected: a file is missing, malformed, outside the folder, or the graph's names,
                types or shapes are not what genai_config.json says. The file is named.
        """
        root = Path(path)
        if not root.is_dir():
            raise ModelRejected(f"{root}: no such folder")
        return cls(root.resolve())

    def _read(self) -> None:
        if not (self.path / CONFIG).exists():
            raise ModelRejected(
                f"{self.path / CONFIG}: missing; expected a folder made by onnxruntime-genai's "
                f"model builder"
            )
        facts = read_config(self._bytes(CONFIG))
        for name in (TOKENIZER, TOKENIZER_CONFIG):
            self._add(name)
        for name in OPTIONAL:
            if (self.path / name).is_symlink() or (self.path / name).exists():
                self._add(name)
        data = self._bytes(facts.filename, GRAPH_BYTES_MAX)
        self.graph: Graph = read_graph(data, facts.filename)
        if len(self.graph.files) > FILES_MAX:
            raise ModelRejected(
                f"{facts.filename}: names {len(self.graph.files)} files, at most {FILES_MAX}"
            )
        self.facts: ModelFacts = replace(facts, dtype=check_signature(self.graph, facts))
        for name in self.graph.files:
            self._add(name)
        self.tokenizer_config: dict[str, Any] = read_json(
            self._bytes(TOKENIZER_CONFIG), TOKENIZER_CONFIG
        )
        self._tokenizer = self._bytes(TOKENIZER)
        self._template = self._find_template()
        has_generation = GENERATION_CONFIG in self._blobs
        self._generation = self._bytes(GENERATION_CONFIG) if has_generation else None

    def _add(self, name: str) -> Blob:
        if name not in self._blobs:
            self._blobs[name] = Blob(self.path, name)
        return self._blobs[name]

    def _bytes(self, name: str, size_max: int = TEXT_BYTES_MAX) -> bytes:
        data = self._add(name).data
        if len(data) > size_max:
            raise ModelRejected(f"{self.path / name}: {len(data)} bytes, at most {size_max}")
        return bytes(data)

    def _find_template(self) -> str | None:
        """chat_template.jinja, else ``chat_template`` of tokenizer_config.json."""
        if TEMPLATE in self._blobs:
            try:
                return self._bytes(TEMPLATE).decode()
            except UnicodeDecodeError as error:
                raise ModelRejected(f"{TEMPLATE}: not UTF-8 at byte {error.start}") from None
        found = self.tokenizer_config.get("chat_template")
        if isinstance(found, list):  # Several, by name; "default" is the one for chat.
            named = [item for item in found if isinstance(item, dict)]
            found = next((i.get("template") for i in named if i.get("name") == "default"), None)
        if found is None or isinstance(found, str):
            return found
        raise ModelRejected(f"{TOKENIZER_CONFIG}: chat_template is {found!r:.80}, expected text")

    @property
    def tokenizer(self) -> str:
        """The text of tokenizer.json."""
        try:
            return self._tokenizer.decode()
        except UnicodeDecodeError as error:
            raise ModelRejected(f"{TOKENIZER}: not UTF-8 at byte {error.start}") from None

    @property
    def template(self) -> str | None:
        """The chat template's source, or None: such a model takes prompts only."""
        return self._template

    @property
    def generation_config(self) -> bytes | None:
        """generation_config.json, or None: there is none."""
        return self._generation

    def identity(self) -> dict[str, str]:
        """File name to sha256, sorted, of every file that can change a bit."""
        return {name: self._blobs[name].sha256 for name in sorted(self._blobs)}

    def weights(self) -> tuple[bytes, list[str], list[Any], list[int]]:
        """The ONNX file and what it names: names, mapped contents, sizes. Valid until `close`."""
        names = list(self.graph.files)
        mapped = [self._blobs[name].data for name in names]
        return self._bytes(self.facts.filename), names, mapped, [len(data) for data in mapped]

    def unchanged(self) -> None:
        """Raise ModelRejected when a file was written to since it was opened."""
        for blob in self._blobs.values():
            blob.unchanged()

    def close(self) -> None:
        """Unmap and close all files; hashes that were computed stay. Twice is harmless."""
        for blob in self._blobs.values():
            blob.close()
