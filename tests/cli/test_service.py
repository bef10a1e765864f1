"""``lockstep serve`` and ``lockstep service`` as a person types them."""

import json
import signal
from pathlib import Path
from typing import Any

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
    root = ("--root", "image")
    printed = place.lockstep("service", "unit", "echo.toml", "--", "--keep-runs", "3")
    assert "--keep-runs 3" in printed.out and "Type=notify" in printed.out
    dry = place.lockstep("service", "install", "echo.toml", *root, "--dry-run")
    assert dry.code == 0 and "would be written" in dry.out and "image" not in place.names()
    done = place.lockstep(
        "service", "install", "echo.toml", *root, "--json", "--", "--keep-runs", "3"
    )
    paths = [Path(file["path"]) for file in done.json["files"]]
    assert [path.name for path in paths] == ["lockstep-echo.service", "lockstep.conf"]
    assert "systemctl enable --now lockstep-echo.service" in done.err
    assert (place.path / paths[0]).read_text().split("\n", 1)[1] == printed.out
    gone = place.lockstep("service", "uninstall", "echo", *root)
    assert gone.code == 0 and gone.out.count("removed") == 2
    assert "PrivateNetwork=yes" in printed.out
    served = place.lockstep("service", "unit", "echo.toml", "--", "--http", "127.0.0.1:80")
    assert "PrivateNetwork" not in served.out and "AF_INET" in served.out
    refused = place.lockstep("service", "install", "echo.toml", *root, "--", "--http", "nowhere")
    assert refused.code == 2 and "expected HOST:PORT" in refused.err
    open_ = ("service", "unit", "echo.toml", "--", "--http", "0.0.0.0:80", "--http-token-file")
    assert "No such file" in place.lockstep(*open_, "tok").err
    place.write("tok", "sesame")
    assert f"--http-token-file {place.path / 'tok'}\n" in place.lockstep(*open_, "tok").out
    user = place.lockstep("service", "install", "--user", "echo.toml", *root, "--dry-run")
    assert "systemd/user/lockstep-echo.service" in user.out
