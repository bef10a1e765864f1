"""`lockstep doctor`: a cure for whatever is missing."""

import configparser
import io
import re
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from lockstep.cli import checks, doctor, probes
from lockstep.cli.checks import FAIL, OFF, OK, WARN
from lockstep.workers import room

ROOT = Path(__file__).resolve().parents[2]
# `doctor` tries the first by its providers; the others are for who works on Lockstep.
MEASURED_OR_BUILT = {"cuda", "test", "browser", "bench", "train"}


def test_a_machine_that_runs_these_tests_is_good_enough(place: Any) -> None:
    result = place.lockstep("doctor", "--json")
    assert result.code == 0, result.err
    assert result.json["ok"] is True
    names = {check["name"] for check in result.json["checks"]}
    assert names >= {"agents", "python", "system", "kernel", "/dev/shm", "descriptors", "machine",
                     "cpu", "guests", "inference", "provider cpu", "provider cuda", "denormals",
                     "stale segments", "working folder"}  # fmt: skip
    assert all(check["cure"] for check in result.json["checks"] if check["state"] not in (OK, OFF))
    assert len(result.err.splitlines()) >= len(names)


def test_package_ranges_are_those_of_the_distribution() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = config["options"]["install_requires"]
    found = set(re.findall(r"^([\w-]+)>=([\d.]+),<([\d.]+)", required, re.MULTILINE))
    ours = {*checks.PACKAGES, *((name, *checks.RUNTIME_RANGE) for name in checks.RUNTIMES)}
    assert found == ours
    extras = config["options.extras_require"]
    for extra, _, parts in checks.EXTRAS:
        listed = [f"{name}>={low},<{high}" for name, low, high in parts]
        assert extras[extra].split() == listed
    assert {extra for extra, _, _ in checks.EXTRAS} == set(extras) - MEASURED_OR_BUILT


def test_an_extra_that_is_missing_is_off_and_says_what_it_is_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extras = (("more", "`lockstep more`", (("pytest", "8", "99"), ("no-such-package", "1", "2"))),
              ("hub", "", (("pytest", "8", "99"), ("click", "9", "10"))))  # fmt: skip
    monkeypatch.setattr(checks, "EXTRAS", extras)
    missing, other = list(checks.packages())[-2:]
    assert (missing.name, missing.state, missing.cure) == ("extra more", OFF, "")
    assert "`lockstep more` needs pip install 'lockstep-runtime[more]'" in missing.found
    assert (other.state, other.cure) == (WARN, "pip install 'click>=9,<10'")


def test_the_probe_model_is_what_its_comment_says() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(probes.ONNX)
    onnx.checker.check_model(model)
    assert [(node.op_type, *node.input, *node.output) for node in model.graph.node] == [
        ("Add", "x", "x", "y")
    ]


def test_a_package_that_is_missing_or_of_another_version_has_a_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "PACKAGES", (("no-such-package", "1", "2"), ("click", "9", "10")))
    missing, other = list(checks.packages())[:2]
    assert (missing.state, missing.cure) == (FAIL, "pip install 'no-such-package>=1,<2'")
    assert (other.state, other.cure) == (WARN, "pip install 'click>=9,<10'")


def test_a_cpu_without_what_guests_need_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.platform, "machine", lambda: "x86_64")
    old = checks.cpu("model name\t: Old\nflags\t\t: fpu sse2\n\nmodel name : Two\n")
    assert old.state == FAIL and old.found == "Old, without ssse3 sse4_1 sse4_2 popcnt cx16"
    slow = checks.cpu("model name: Slow\nflags: ssse3 sse4_1 sse4_2 popcnt cx16\n")
    assert (slow.state, slow.found) == (WARN, "Slow, without avx2")


@pytest.mark.parametrize(
    ("limit", "state", "agents"), [(194, FAIL, 0), (256, WARN, 31), (4096, OK, 1951)]
)
def test_descriptors_are_counted_as_a_run_counts_them(
    monkeypatch: pytest.MonkeyPatch, limit: int, state: str, agents: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    found = checks.descriptors()
    assert (found.state, found.found) == (state, f"at most {limit}, enough for {agents} agents")
    assert bool(found.cure) == (state != OK)
    assert room.descriptors().needed(agents) <= limit < room.descriptors().needed(agents + 1)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    found = checks._folder("working folder", tmp_path / "none", WARN, "a cure")
    assert (found.state, found.cure) == (WARN, "a cure")


def test_a_probe_that_crashes_is_a_failure_with_its_last_words() -> None:
    (found,) = doctor.probe("crashing", "os:abort")
    assert (found.state, found.name) == (FAIL, "crashing")
    assert "SIGABRT" in found.found
    (found,) = doctor.probe("raising", "no_such_module:f")
    assert found.state == FAIL and "no_such_module" in found.found


def test_what_is_optional_and_absent_is_off_and_not_ok() -> None:
    missing = SimpleNamespace(provider="tensorrt", cause="no libnvinfer", cure="")
    found = probes._provider("tensorrt", SimpleNamespace(got=["cpu"], missing=[missing]))
    assert (found.state, found.found) == (OFF, "optional; does not come up: no libnvinfer")
    text = doctor.line(found, io.StringIO())
    assert text.startswith("- off ") and "ok" not in text


def test_room_for_agents_is_told_by_resource_with_the_arithmetic() -> None:
    (found,) = probes.agents(3, 65_536, 0)
    assert found["state"] == OK, found
    assert re.match(
        r"room for \d+ agents \(record_bytes_max = 65536\): memory \d+ ", found["found"]
    )
    assert re.search(r"shared memory \d+ \(0\.2 KiB each, ", found["found"])
    (larger,) = probes.agents(3, 1 << 26, 64)
    assert re.match(r"room for \d+ agents \(record_bytes_max = 67108864, 64 MiB\)", larger["found"])


def test_agents_that_there_is_no_room_for_fail_with_the_cure_of_the_tightest() -> None:
    (found,) = probes.agents(3, 1 << 26, 1 << 22)  # 4 TiB for each guest.
    assert found["state"] == FAIL and "`replicas`" in found["cure"]
    assert re.match(r"3 agents need 12\d{3}\.\d GiB of memory \(3 x 4\d+\.\d GiB", found["found"])


def test_doctor_fails_where_so_many_agents_have_no_room(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LOOKS", ())
    only = {"agents": doctor.PROBES["agents"]}
    monkeypatch.setattr(doctor, "PROBES", only)
    run = CliRunner()
    few = run.invoke(doctor.command, ["--agents", "2"], standalone_mode=False)
    many = run.invoke(
        doctor.command, ["--agents", "10000", "--memory", "4194304"], standalone_mode=False
    )
    assert (few.return_value, many.return_value) == (0, 2)
    assert "room for" in few.output and "10000 agents need" in many.output


def test_off_is_counted_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    states = (OK, OFF, OK)
    monkeypatch.setattr(doctor, "examine", lambda _: [checks.Check("x", s, "y") for s in states])
    result = CliRunner().invoke(doctor.command, [], standalone_mode=False)
    assert result.output.endswith("possible: 2 ok, 0 warn, 0 fail, 1 off\n")


def test_a_line_shows_symbol_finding_and_cure() -> None:
    text = doctor.line(
        checks.Check("thing", FAIL, "it is\x1b[0m gone", "put it back"), io.StringIO()
    )
    assert "FAIL  thing" in text and "\\x1b[0m gone\n" in text and "cure: put it back" in text
