"""Model folders for tests: the committed micro models, and copies that a test may damage."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lockstep.bench import models
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.expected import CPU_FLAG, cpu_flags
from lockstep.workers.inference.growing import decoder_class
from lockstep.workers.inference.model import ModelFolder

DATA = Path(__file__).parents[2] / "data"

MakeDecoder = Callable[..., Decoder]


@pytest.fixture
def data() -> Path:
    return DATA


@pytest.fixture
def fp32() -> Path:
    return DATA / "genai-micro-fp32"


@pytest.fixture(params=["fp32", "int4", "qwen2-fp32"])
def any_model(request: pytest.FixtureRequest) -> Path:
    """Each micro model whose expectations hold on this CPU."""
    if request.param == "int4" and CPU_FLAG not in cpu_flags():
        pytest.skip(f"int4 expectations were computed on a CPU with {CPU_FLAG}")
    return DATA / f"genai-micro-{request.param}"


HALF = {
    "layers": 2, "hidden": 128, "heads": 2, "kv_heads": 1, "head_dim": 64, "intermediate": 256,
    "vocab": models.VOCAB, "context_tokens": 256, "float_bits": 16,
}  # fmt: skip


@pytest.fixture(scope="session", params=[16, 4], ids=["fp16", "int4"])
def half(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that computes in float16, as GPUs want it; its matrices are that, or four bits."""
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("half") / f"half-{request.param}"
    models._build(folder, {**HALF, "weight_bits": request.param})
    return folder


@pytest.fixture
def single(half: Path, tmp_path: Path) -> Path:
    """The same weights in float32."""
    bits = 4 if half.name.endswith("-4") else 32
    models._build(tmp_path / "single", {**HALF, "weight_bits": bits, "float_bits": 32})
    return tmp_path / "single"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the float32 model to damage."""
    target = tmp_path / "model"
    shutil.copytree(DATA / "genai-micro-fp32", target)
    return target


@pytest.fixture
def decoder() -> Iterator[MakeDecoder]:
    """Makes decoders of a folder and closes them: (path, rows, tokens, threads=1, **more)."""
    made = []

    def make(
        path: Path,
        rows: int = 4,
        tokens: int = 96,
        threads: int = 1,
        file: str = "",
        **more: object,
    ) -> Decoder:
        folder = ModelFolder.open(path, file)
        try:
            kind = decoder_class(folder.facts)
            made.append(kind(folder, rows, tokens, threads, **more))  # type: ignore[arg-type]
        finally:
            folder.close()
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def edit_json() -> Callable[[Path, Callable[[dict], None]], None]:  # type: ignore[type-arg]
    def edit(path: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return edit
