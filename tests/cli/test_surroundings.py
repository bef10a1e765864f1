"""`lockstep doctor`: what lies around a run."""

import os
import resource
from pathlib import Path

import pytest

from lockstep.cli import surroundings
from lockstep.cli.checks import FAIL, OFF, OK, WARN


@pytest.mark.parametrize(("gib", "state"), [(4, FAIL), (8, WARN)])
def test_a_limit_on_addresses_is_told_because_guests_reserve_them(gib: int, state: str) -> None:
    found = surroundings.address_space(gib << 30)
    assert (found.state, found.cure) == (state, "ulimit -v unlimited (systemd: no LimitAS=)")
    assert f"{gib}.0 GiB" in found.found
    assert surroundings.address_space(resource.RLIM_INFINITY).state == OK


def test_a_quota_of_cores_is_told_where_it_is_less_than_the_cores(tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    assert list(surroundings.cpu_quota(path)) == []
    path.write_text("max 100000\n")
    assert list(surroundings.cpu_quota(path)) == []
    path.write_text("50000 100000\n")
    (found,) = surroundings.cpu_quota(path)
    assert found.state == WARN and found.found.startswith("0.5 of ") and found.cure


@pytest.mark.parametrize(
    ("setting", "release", "state"),
    [
        (None, "6.8.0", OFF),
        ("always [madvise] never", "5.15.0-91-generic", OFF),
        ("always madvise [never]", "6.8.0", WARN),
        ("always [madvise] never", "6.1.0", OK),
    ],
)
def test_large_pages_are_there_off_or_switched_off(
    tmp_path: Path, setting: str | None, release: str, state: str
) -> None:
    path = tmp_path / "enabled"
    if setting is not None:
        path.write_text(setting)
    found = surroundings.huge_pages(path, release)
    assert (found.state, bool(found.cure)) == (state, state == WARN)


def test_a_cache_that_cannot_be_written_or_has_no_place_has_a_cure(tmp_path: Path) -> None:
    assert surroundings.cache(str(tmp_path / "not/yet/there")).state == OK
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for folder in ("", str(tmp_path / "file"), "/proc/self"):
        found = surroundings.cache(folder)
        assert found.state == WARN and "XDG_CACHE_HOME" in found.cure


def test_a_clock_that_is_behind_the_installation_is_wrong(tmp_path: Path) -> None:
    installed = tmp_path / "file"
    installed.touch()
    os.utime(installed, (1_800_000_000, 1_800_000_000))
    assert surroundings.clock(1_800_000_000.0, installed).found == "2027-01-15 08:00 UTC"
    found = surroundings.clock(0.0, installed)
    assert found.state == WARN and found.cure and found.found.startswith("1970-01-01 00:00 UTC, ")
    assert surroundings.clock().state == OK


def test_systemd_is_optional(tmp_path: Path) -> None:
    assert surroundings.service_manager(tmp_path).state == OK
    assert surroundings.service_manager(tmp_path / "none").state == OFF


def test_two_wheels_of_one_runtime_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "RUNTIMES", ("click", "no-such-package"))
    assert list(surroundings.runtimes()) == []
    monkeypatch.setattr(surroundings, "RUNTIMES", ("click", "numpy"))
    (found,) = surroundings.runtimes()
    assert found.state == WARN and "click and numpy are both installed" in found.found
