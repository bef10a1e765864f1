"""Providers: a fallback is said with its cause, never silent, and refused where one is required."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep.engine.errors import ModelRejected, ProviderMissing, UsageError
from lockstep.engine.fleet import Model
from lockstep.workers.inference import provider
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.greedy import generate
from lockstep.workers.inference.loaded import spins
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.provider import (
    ProviderReport,
    device_of,
    full_names,
    open_session,
    provider_options,
)


@pytest.fixture
def folder(fp32: Path) -> Iterator[ModelFolder]:
    opened = ModelFolder.open(fp32)
    yield opened
    opened.close()


def test_cpu_alone_is_got_and_nothing_is_missing(folder: ModelFolder) -> None:
    session, report = open_session(folder, ["cpu"], "cpu", 1)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert (report.asked, report.got, report.missing) == (("cpu",), ("cpu",), ())
    assert report.lines() == []


def test_fallback_from_cuda_is_reported_with_cause_and_cure_and_no_noise(
    folder: ModelFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    _, report = open_session(folder, ["tensorrt", "cuda", "rocm", "migraphx", "cpu"], None, 1)
    if "cuda" in report.got:
        pytest.skip("this machine has CUDA")
    assert report.running == "cpu"
    assert [item.provider for item in report.missing] == ["tensorrt", "cuda", "rocm", "migraphx"]
    assert all(item.cause and item.cure for item in report.missing)
    assert report.missing[2].cause == provider.NOT_BUILT
    assert len(report.lines()) == 4
    assert json.loads(json.dumps(report.to_json()))["got"] == ["cpu"]
    assert capfd.readouterr() == ("", "")


def test_cuda_without_cpu_in_the_list_still_runs_and_says_so(folder: ModelFolder) -> None:
    _, report = open_session(folder, ["cuda"], None, 1)
    if "cuda" in report.got:
        pytest.skip("this machine has CUDA")
    assert report.got == ("cpu",)
    assert report.missing[0].provider == "cuda"


def test_required_provider_that_is_missing_is_refused(folder: ModelFolder) -> None:
    try:
        open_session(folder, ["cuda", "cpu"], "cuda", 1)
    except ProviderMissing as error:
        assert "require = 'cuda'" in str(error)
        assert ".[cuda]" in str(error)
    else:
        pytest.skip("this machine has CUDA")
    with pytest.raises(ProviderMissing, match="not in this build"):
        open_session(folder, ["rocm", "cpu"], "rocm", 1)


def test_names_are_checked_before_anything_is_loaded(folder: ModelFolder) -> None:
    assert full_names(["cuda", "WebGpuExecutionProvider"])[1] == "WebGpuExecutionProvider"
    with pytest.raises(UsageError, match="did you mean 'cuda'"):
        full_names(["cudda"])
    with pytest.raises(UsageError, match="did you mean 'cuda'"):
        full_names(["CUDA"])
    with pytest.raises(UsageError, match="did you mean 'OpenVINOExecutionProvider'"):
        full_names(["openvino"])
    with pytest.raises(UsageError, match="'ExecutionProvider' is unknown"):
        full_names(["ExecutionProvider"])
    for wrong in ([], ["cpu", "cpu"]):
        with pytest.raises(UsageError, match="each once"):
            full_names(wrong)
    with pytest.raises(UsageError, match="do not ask for it"):
        open_session(folder, ["cpu"], "cuda", 1)


def test_a_provider_by_its_own_name_is_tried_and_reported_with_its_cure(
    folder: ModelFolder,
) -> None:
    asked = ["OpenVINOExecutionProvider", "CUDDAExecutionProvider", "cpu"]
    _, report = open_session(folder, asked, None, 1)
    built, unknown = report.missing
    assert (built.cause, built.cure.split()[1]) == (provider.NOT_BUILT, "onnxruntime-openvino")
    assert "knows no CUDDAExecutionProvider; did you mean 'cuda'?" in unknown.cause
    with pytest.raises(ProviderMissing, match="onnxruntime-openvino in place of"):
        open_session(folder, asked, "OpenVINOExecutionProvider", 1)


def test_memory_is_known_by_name_and_has_addresses() -> None:
    assert [device_of(name) for name in ("Cpu", "CudaPinned", "HipPinned")] == ["cpu"] * 3
    assert [device_of(name) for name in ("Cuda", "Hip", "Cann")] == ["cuda", "cuda", "cann"]
    for name in ("DML", "WebGPU_Buf", "something"):
        with pytest.raises(ProviderMissing, match=f"memory called '{name}'"):
            device_of(name)


LOG = (
    "[E:onnxruntime:Default] Failed to load library /x/libonnxruntime_providers_tensorrt.so with "
    "error: libnvinfer.so.10: cannot open shared object file: No such file or directory\n"
    "[E:onnxruntime:Default] CUDA failure 100: no CUDA-capable device is detected ; GPU=-1\n"
)


class FakeSession:
    """Raises for TensorRT, as ONNX Runtime does; drops CUDA with a log line."""

    def __init__(self, graph: bytes, options: Any, providers: list[Any], **_: Any) -> None:
        names = [name for name, _ in providers]
        if "TensorrtExecutionProvider" in names:
            raise RuntimeError("RegisterTensorRTPluginsAsCustomOps: install TensorRT libraries")
        self.options = dict(providers)

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def test_causes_are_read_from_the_log_provider_by_provider(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeStderr:
        text = LOG

        def __enter__(self) -> "FakeStderr":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(provider, "CapturedStderr", FakeStderr)
    monkeypatch.setattr(provider.ort, "InferenceSession", FakeSession)
    monkeypatch.setattr(provider.ort, "preload_dlls", lambda: None)
    built = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(provider.ort, "get_available_providers", lambda: built)
    _, report = open_session(folder, ["tensorrt", "cuda", "cpu"], None, 1)
    causes = {item.provider: item.cause for item in report.missing}
    assert causes["tensorrt"] == "the library libnvinfer.so.10 is missing"
    assert "no CUDA-capable device is detected" in causes["cuda"]


def test_choices_by_timing_are_off_or_kept(tmp_path: Path) -> None:
    cuda = provider_options("CUDAExecutionProvider", None)
    assert (cuda["use_tf32"], cuda["tunable_op_enable"]) == ("0", "0")
    assert cuda["enable_cuda_graph"] == "0"
    captured = provider_options("CUDAExecutionProvider", None, graphs=True)
    assert captured == cuda | {"enable_cuda_graph": "1"}
    assert provider_options("TensorrtExecutionProvider", None) == {}
    cached = provider_options("TensorrtExecutionProvider", tmp_path)
    assert cached["trt_engine_cache_path"] == str(tmp_path)
    assert provider_options("CPUExecutionProvider", tmp_path) == {}


def test_model_written_to_while_it_loads_is_refused(copy: Path) -> None:
    folder = ModelFolder.open(copy)
    with (copy / "model.onnx.data").open("r+b") as file:
        file.write(b"\0")
    with pytest.raises(ModelRejected, match=r"model\.onnx\.data: changed while"):
        open_session(folder, ["cpu"], None, 1)
    folder.close()


@pytest.mark.parametrize(("said", "cores", "spin"), [
    ("on", 1, True), ("off", 64, False), ("auto", 2, False), ("auto", 3, True),
])  # fmt: skip
def test_threads_spin_by_themselves_only_where_there_are_cores_to_spare(
    monkeypatch: pytest.MonkeyPatch, said: str, cores: int, spin: bool
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert spins(Model("m", "m", ("cpu",), "", 2, 1, 8, 8, 1, spin=said)) is spin


def test_spinning_changes_no_bit(fp32: Path) -> None:
    rows = []
    for spin in (False, True):
        folder = ModelFolder.open(fp32)
        decoder = Decoder(folder, 2, 64, 2, spin=spin)
        folder.close()
        rows.append(generate(decoder, [(5, 6, 7), (9,)], 6))
        decoder.close()
    assert all(a.same(b) for a, b in zip(*rows, strict=True))


@pytest.mark.parametrize(("running", "device", "told"), [
    ("cuda", "cpu", True), ("tensorrt", "cpu", True), ("cuda", "cuda", False),
    ("cpu", "cpu", False), ("OpenVINOExecutionProvider", "cpu", False),
])  # fmt: skip
def test_attention_that_stays_on_the_cpu_beside_a_gpu_is_told(
    running: str, device: str, told: bool
) -> None:
    notes = provider.of_attention(
        ProviderReport((running,), (running, "cpu"), ()), device, "float32"
    )
    assert len(notes) == told and all("float32" in note and "float16" in note for note in notes)
