"""``lockstep model pull`` as a person calls it: killed, interrupted, refused, and going on."""

import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hubserver import COMMIT, Fault, Server, serving

from lockstep.cli.pull import line

MODEL = Path(__file__).resolve().parents[1] / "data" / "genai-micro-fp32"
WEIGHTS = "model.onnx.data"
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
WATCHDOG_S = 120


@pytest.fixture
def server() -> Iterator[Server]:
    files = {path.name: path.read_bytes() for path in MODEL.iterdir() if path.is_file()}
    with serving(files) as found:
        yield found


@pytest.fixture
def here(place: Any, server: Server) -> Any:
    """A place whose hub is ours, and whose account is nobody's."""
    kept = {
        key: value
        for key, value in place.env.items()
        if not key.startswith("HF_") and key.lower() not in PROXIES
    }
    more = {"HF_ENDPOINT": server.url, "HF_HOME": str(place.path / "hf")}
    return replace(place, env=kept | more)


def until(fact: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    end_s = time.monotonic() + WATCHDOG_S
    while not fact():
        assert time.monotonic() < end_s
        os.sched_yield()


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code and standard error of a process that was started."""
    _, err = process.communicate(timeout=WATCHDOG_S)
    assert "Traceback" not in err
    return process.returncode, err


def test_a_model_is_pulled_and_can_be_checked(here: Any) -> None:
    result = here.lockstep("model", "pull", "acme/tiny", "--json")
    assert result.code == 0, result.err
    assert result.json["commit"] == COMMIT
    assert result.json["folder"] == result.json["model"] == "tiny"
    assert (
        result.json["fetched"]
        == result.json["bytes"]
        == sum(one["bytes"] for one in result.json["files"])
    )
    assert result.out.count("\n") == 1
    checked = here.lockstep("model", "inspect", "tiny", "--json")
    assert checked.code == 0, checked.err
    pulled = {one["file"]: one["sha256"] for one in result.json["files"]}
    assert checked.json["sha256"].items() <= pulled.items()


def test_sizes_are_said_before_the_bytes_and_a_pipe_gets_no_progress_line(here: Any) -> None:
    result = here.lockstep("model", "pull", "acme/tiny", "--to", "deep/m")
    assert result.code == 0, result.err
    lines = result.err.splitlines()
    assert lines[0] == "lockstep: pulling: acme/tiny at 0123456789ab"
    assert lines[1].split() == ["file", "size"]
    assert ["model.onnx.data", "625.2", "KiB"] in [text.split() for text in lines]
    size = next(n for n, text in enumerate(lines) if text.startswith("lockstep: size: 662.2 KiB"))
    assert size < min(n for n, text in enumerate(lines) if "proven" in text)
    assert "\r" not in result.err and "\x1b" not in result.err
    assert [text.split()[0] for text in result.out.splitlines() if text[0] != " "] == [
        *("folder", "model", "commit", "size", "fetched", "sha256", "next")
    ]


@pytest.mark.parametrize("at", [1, 65_536, 300_001, 640_255])
def test_a_killed_pull_goes_on_at_the_byte_it_had(here: Any, server: Server, at: int) -> None:
    server.faults = [Fault("hang", at, WEIGHTS)]
    process = here.start("model", "pull", "acme/tiny")
    part = here.path / "tiny" / ".lockstep-pull" / "files" / WEIGHTS
    until(lambda: part.exists() and part.stat().st_size == at)
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    server.release.set()
    server.asked.clear()
    again = here.lockstep("model", "pull", "acme/tiny", "--json")
    assert again.code == 0, again.err
    assert server.gets(WEIGHTS) == [f"bytes={at}-"]
    assert again.json["fetched"] == len(server.files[WEIGHTS]) - at
    assert (here.path / "tiny" / WEIGHTS).read_bytes() == server.files[WEIGHTS]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pull_loses_nothing_and_says_how_to_go_on(
    here: Any, server: Server, number: signal.Signals
) -> None:
    server.faults = [Fault("hang", 400_000, WEIGHTS)]
    process = here.start("model", "pull", "acme/tiny")
    assert server.hung.wait(WATCHDOG_S)
    process.send_signal(number)
    code, err = ended(process)
    assert code == 130
    assert err.splitlines()[-1].startswith("lockstep: error: interrupted; ")
    assert "are kept in tiny, and the same command goes on from there" in err
    server.release.set()
    again = here.lockstep("model", "pull", "acme/tiny")
    assert again.code == 0, again.err
    assert "are there already" in again.err


def test_a_disk_that_takes_no_more_stops_it_and_it_goes_on(here: Any, server: Server) -> None:
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))

    result = here.lockstep("model", "pull", "acme/tiny", "--json", preexec_fn=small_files)
    assert result.code == 3
    assert "File too large; " in result.json["error"]
    assert "the same command goes on from there" in result.json["error"]
    server.asked.clear()
    assert here.lockstep("model", "pull", "acme/tiny").code == 0
    (wanted,) = server.gets(WEIGHTS)
    assert 0 < int(wanted.removeprefix("bytes=").removesuffix("-")) <= 300_000


def test_a_server_that_falls_silent_is_asked_for_the_rest(here: Any, server: Server) -> None:
    server.faults = [Fault("hang", 1000, WEIGHTS)]
    patient = replace(here, env={**here.env, "HF_HUB_DOWNLOAD_TIMEOUT": "3"})
    result = patient.lockstep("model", "pull", "acme/tiny")
    assert result.code == 0, result.err
    assert server.gets(WEIGHTS) == ["", "bytes=1000-"]


def refused(here: Any, *args: str, **env: str) -> str:
    """The one line of a refusal; nothing was made."""
    before = here.names()
    result = replace(here, env=here.env | env).lockstep("model", "pull", *args, "--json")
    assert result.code == 2, result.err
    assert len(result.err.splitlines()) == 1
    assert here.names() - {"hf"} == before - {"hf"}
    return str(result.json["error"])


def test_no_hub_is_one_line(here: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        said = refused(here, "acme/tiny", HF_ENDPOINT=address)
    assert said.startswith(f"{address} cannot be reached: ConnectError: ")


def test_a_hub_that_says_nothing_is_one_line(here: Any, server: Server) -> None:
    server.faults = [Fault("hang", path="list")]
    said = refused(here, "acme/tiny", HF_HUB_ETAG_TIMEOUT="1")
    assert said.startswith(f"{server.url} cannot be reached: ReadTimeout")


def test_an_address_that_is_none_is_one_line(here: Any) -> None:
    assert "nonsense" in refused(here, "acme/tiny", HF_ENDPOINT="nonsense")
    assert "HF_" in refused(here, "acme/tiny", HF_ENDPOINT="http://[::")


def test_offline_is_one_line(here: Any, server: Server) -> None:
    assert "HF_HUB_OFFLINE is set" in refused(here, "acme/tiny", HF_HUB_OFFLINE="1")
    assert server.asked == []


def test_a_setting_of_the_library_that_is_no_number_is_one_line(here: Any) -> None:
    said = refused(here, "acme/tiny", HF_HUB_DOWNLOAD_TIMEOUT="soon")
    assert "huggingface_hub cannot be loaded" in said and "'soon'" in said


def test_without_the_extra_it_says_how_to_install_it(here: Any) -> None:
    broken = here.path / "elsewhere"
    broken.mkdir()
    (broken / "huggingface_hub.py").write_text("raise ImportError('not here')")
    said = refused(here, "acme/tiny", PYTHONPATH=str(broken))
    assert "needs huggingface_hub" in said and "pip install 'lockstep-runtime[hub]'" in said


def test_a_folder_with_other_files_is_refused_by_name(here: Any) -> None:
    said = refused(here, "acme/tiny", "--to", ".")
    assert "has other files in it (asks.toml," in said


def test_a_repository_that_is_not_there_is_one_line(here: Any) -> None:
    assert "has no repository acme/none" in refused(here, "acme/none")


def test_help_loads_no_library_of_the_hub() -> None:
    program = (
        "import sys; from lockstep.cli.main import cli\n"
        "for args in (['model', '--help'], ['model', 'pull', '--help']):\n"
        "    try: cli.main(args)\n"
        "    except SystemExit: pass\n"
        "print([name for name in ('huggingface_hub', 'httpx', 'numpy') if name in sys.modules])"
    )
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_S, check=True)
    assert "OWNER/NAME[@REVISION]" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_terminal_shows_bytes_while_they_come(here: Any, server: Server) -> None:
    server.faults = [Fault("hang", 400_000, WEIGHTS)]
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "lockstep.cli.main", "model", "pull", "acme/tiny"]
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=here.path, env=here.env, stderr=secondary, **pipes) as run:
        os.close(secondary)
        seen = b""
        try:
            while b" of 662.2 KiB" not in seen:
                seen += os.read(primary, 4096)
            assert server.hung.wait(WATCHDOG_S)
        finally:
            run.kill()
            os.close(primary)
    assert b"\r" in seen and b"[" in seen


VALUE = {"what": "fetch", "file": "onnx/model_q4.onnx", "done": 512 << 20, "all": 2 << 30}


def test_the_progress_line_says_how_much_how_fast_and_how_long() -> None:
    assert line(VALUE, 64.0 * (1 << 20), 100) == (
        "[####------------]  512.0 MiB of 2.0 GiB  64.0 MiB/s  0:24 left  onnx/model_q4.onnx"
    )
    assert "comparing onnx/" in line(VALUE | {"what": "compare"}, 0.0, 100)


def test_the_progress_line_fits_every_width_and_survives_an_empty_model() -> None:
    for width in range(120):
        assert len(line(VALUE, 1e6, width)) <= width
    assert "0 B of 0 B" in line(VALUE | {"done": 0, "all": 0}, 0.0, 80)


def test_a_file_name_of_a_hub_cannot_command_a_terminal() -> None:
    assert "\x1b" not in line(VALUE | {"file": "\x1b[2Jx"}, 0.0, 200)
