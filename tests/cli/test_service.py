"""``lockstep serve`` and ``lockstep service`` as a person types them."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import arriving
import pytest

from lockstep.cli import install

ECHO = """
[fleet]
name = "echo"
[agents.echo]
module = "{guests}/echo.wasm"
input = "broadcast"
"""


def _start(place: Any) -> Any:
    """A service that is ready."""
    place.write("echo.toml", ECHO)
    process = place.start("serve", "echo.toml", "--state", "s", "--client-max", "2")
    for line in process.stderr:
        if " notice: ready" in line:
            return process
    raise AssertionError(process.communicate())


def test_a_service_is_spoken_to_from_another_terminal(place: Any) -> None:
    process = _start(place)
    one = place.lockstep("service", "submit", "s", '{"id": "x", "n": 1}')
    assert one.code == 0 and json.loads(one.out)["id"] == "x"
    # More than the client's two at once: it asks again when it is told to.
    all_ = place.lockstep("service", "submit", "s", "--input", "items.jsonl", "--json")
    assert all_.code == 0
    assert sorted(answer["id"] for answer in all_.json["answers"]) == ["a", "b", "c"]
    taken = place.lockstep("service", "submit", "s", '{"id": "d"}', "--no-wait")
    assert json.loads(taken.out)["run"] == "echo-1"
    other = place.lockstep("service", "submit", "s", '{"id": "x", "n": 2}')
    assert other.code == 2 and "is that of another item" in other.err and not other.out
    status = place.lockstep("service", "status", "s", "--json")
    assert status.json["state"] == "ready" and "echo-1" in status.err
    top = place.lockstep("service", "top", "s", "--json")
    assert top.json["agents"][0]["name"] == "echo"
    gone = place.lockstep("service", "cancel", "s", "--item", "x")
    assert gone.code == 2 and "finished already" in gone.err
    drained = place.lockstep("service", "drain", "s")
    assert drained.code == 0
    _, err = process.communicate()
    assert process.returncode == 0 and "Traceback" not in err
    after = place.lockstep("service", "status", "s")
    assert after.code == 2 and "the service does not run" in after.err
    assert place.lockstep("verify", "s/runs/echo-1").code == 0


def test_ctrl_c_ends_a_service_with_exit_code_0(place: Any) -> None:
    process = _start(place)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 0 and "stopping why=SIGINT" in err


# While it reads its own command line, imports, reads the fleet, and has everything but a run.
STARTING = {
    "the verb": ("import", "lockstep.cli.kinds", signal.SIGINT),
    "imports": ("import", "lockstep.workers.service.daemon", signal.SIGTERM),
    "the fleet": ("open", "echo.toml", signal.SIGINT),
    "the socket": ("socket.bind", "", signal.SIGTERM),
}


@pytest.mark.parametrize("moment", STARTING)
def test_a_service_that_is_ended_while_it_starts_ends_with_exit_code_0(
    place: Any, moment: str
) -> None:
    event, part, number = STARTING[moment]
    place.write("echo.toml", ECHO)
    args = (event, part, str(int(number)), "serve", "echo.toml", "--state", "s")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "arriving", *args],
        cwd=place.path,
        env=place.env | {"PYTHONPATH": arriving.__file__.rpartition("/")[0]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    last = done.stderr.splitlines()[-1]
    early = "lockstep: stopped: before the service had started"
    assert last == early or last.endswith("the service has ended")
    assert "Traceback" not in done.stderr and " notice: ready" not in done.stderr


def test_bad_items_are_named_before_anything_is_sent(place: Any) -> None:
    for text, expected in (("{", "not valid JSON"), ("5", "expected a JSON object")):
        found = place.lockstep("service", "submit", "s", text)
        assert found.code == 2 and expected in found.err
    assert "no items" in place.lockstep("service", "submit", "s").err
    assert "no service has this as its state" in place.lockstep("service", "drain", "s").err


@pytest.mark.parametrize("given", ["", "here", "./here"])
def test_a_relative_folder_of_configuration_counts_as_none(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_CONFIG_HOME", given)
    assert install.config() == Path("/home/ann/.config")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/there")
    assert install.config() == Path("/there")


def test_a_unit_is_installed_below_a_root_and_removed(place: Any) -> None:
    place.write("echo.toml", ECHO)
    # A person's own, for tests may lie in /tmp, which a service of the system does not see.
    root = ("--user", "--root", "image")
    keep = ("--", "--keep-runs", "3")
    printed = place.lockstep("service", "unit", "--user", "echo.toml", *keep)
    assert "--keep-runs 3" in printed.out and "Type=notify" in printed.out
    dry = place.lockstep("service", "install", "echo.toml", *root, "--dry-run")
    assert dry.code == 0 and "would be written" in dry.out and "image" not in place.names()
    done = place.lockstep("service", "install", "echo.toml", *root, "--json", *keep)
    (path,) = [Path(file["path"]) for file in done.json["files"]]
    assert path.match("systemd/user/lockstep-echo.service")
    assert "systemctl --user enable --now lockstep-echo.service" in done.err
    assert (place.path / path).read_text().split("\n", 1)[1] == printed.out
    gone = place.lockstep("service", "uninstall", "echo", *root)
    assert gone.code == 0 and gone.out.count("removed") == 1


def test_a_unit_opens_the_network_for_http_and_names_the_token_where_it_lies(place: Any) -> None:
    place.write("echo.toml", ECHO)
    unit = ("service", "unit", "--user", "echo.toml")
    assert "AF_INET" not in place.lockstep(*unit).out
    assert "AF_INET" in place.lockstep(*unit, "--", "--http", "127.0.0.1:80").out
    refused = place.lockstep(*unit, "--", "--http", "nowhere")
    assert refused.code == 2 and "expected HOST:PORT" in refused.err
    open_ = (*unit, "--", "--http", "0.0.0.0:80", "--http-token-file", "tok")
    assert "No such file" in place.lockstep(*open_).err
    place.write("tok", "sesame")
    assert f"--http-token-file {place.path / 'tok'}\n" in place.lockstep(*open_).out


def test_what_cannot_be_in_a_unit_is_refused_in_one_line(place: Any) -> None:
    place.write("echo.toml", ECHO)
    for args, said in (
        (("--memory-max", "4G\nExecStartPost=/bin/sh"), "--memory-max is '4G\\nExec"),
        (("--as", "root\n"), "--as is 'root\\n', expected the name"),
        (("--name", "a b"), "name is 'a b', expected"),
        (("--stop-s", "nan"), "'nan' is not a number"),
    ):
        found = place.lockstep("service", "unit", "--user", "echo.toml", *args)
        assert found.code == 2 and said in found.err and not found.out, found
        assert len(found.err.splitlines()) == 1
    with TemporaryDirectory(dir="/tmp") as folder:
        fleet = shutil.copy(place.path / "echo.toml", folder)
        hidden = place.lockstep("service", "unit", fleet)
    assert hidden.code == 2 and f"error: {fleet}: a service of the system" in hidden.err
