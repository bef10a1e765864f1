"""Pages in a real browser: no complaint on its console, no request but for the page itself.

The browser's only way out is a proxy that is ours, so whatever it asks for is seen.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from profiles import profile

from lockstep.workers.pictures import profile_page
from lockstep.workers.pictures.page import figure, page
from lockstep.workers.pictures.timeline import SCRIPT, timeline

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-dev-shm-usage", "--proxy-bypass-list=<-loopback>",
    "--disable-features=NetworkTimeServiceQuerying,OptimizationHints", "--enable-logging=stderr",
    "--virtual-time-budget=3000",
)  # fmt: skip
# Whom a browser asks by itself, whatever page it shows, flags or not.
ITS_OWN = re.compile(r"(^|[./])(google|googleapis|gvt1)\.com([:/]|$)")
PLACE = "http://report.invalid/report.html"
HUNG_S = 120.0

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not BROWSER, reason="no Chromium is installed"),
]


class Shown:
    """A page as the browser has it: its elements, its console, what it asked for."""

    def __init__(self, text: str, folder: Path, *flags: str) -> None:
        asked: list[str] = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(text.encode(), asked))
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        proxy = f"--proxy-server=http://127.0.0.1:{server.server_port}"
        command = [BROWSER, *FLAGS, *flags, proxy, f"--user-data-dir={folder}", "--dump-dom", PLACE]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=HUNG_S, check=True
            )
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
        self.dom, self.asked = done.stdout, [a for a in asked if not ITS_OWN.search(a)]
        self.console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def handler(data: bytes, asked: list[str]) -> type[BaseHTTPRequestHandler]:
    """A proxy that has one page and notes what it is asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            known = self.path == PLACE
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(data) if known else 0))
            self.end_headers()
            self.wfile.write(data if known else b"")

        do_POST = do_GET

        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_response_only(502)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def boxes(dom: str) -> dict[tuple[str, str], str]:
    """(track, kind) to the outline that is drawn."""
    paths = re.findall(r"<path [^>]*data-track[^>]*>", dom)
    found = {}
    for path in paths:
        value = dict(re.findall(r'([\w-]+)="([^"]*)"', path))
        found[value["data-track"], value["data-kind"]] = value["d"]
    return found


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    yield Shown(profile_page(profile()), tmp_path_factory.mktemp("browser"))


def test_a_report_is_shown_without_a_complaint_and_asks_for_nothing(usual: Shown) -> None:
    assert usual.console == []
    assert usual.asked == [PLACE]
    assert "<svg" in usual.dom and 'class="bar"' in usual.dom  # The script ran.


def test_the_canary_a_page_that_asks_and_complains_is_noticed(tmp_path: Path) -> None:
    text = profile_page(profile()).replace("default-src 'none'", "default-src *")
    text = text.replace(
        "</main>", '<img src="http://elsewhere.invalid/a.png"><script>1</script></main>'
    )
    shown = Shown(text, tmp_path)
    assert "http://elsewhere.invalid/a.png" in shown.asked
    assert shown.console != []


def test_a_still_timeline_and_a_moved_one_are_drawn_alike(tmp_path: Path) -> None:
    # Zoomed in and out again, every outline is what it was: the script draws as Python did.
    still = profile_page(profile())
    there_and_back = "for (const n of [0, 4]) document.querySelectorAll('.bar button')[n].click();"
    script = SCRIPT.read_text() + there_and_back
    moved = Shown(page("t", "", [("s", _timeline(still))], script), tmp_path)
    before, after = boxes(still), boxes(moved.dom)
    assert moved.console == [] and before.keys() == after.keys()
    assert [k for k in before if before[k].count("z") != after[k].count("z")] == []


def test_looking_into_a_part_draws_more_of_it(tmp_path: Path) -> None:
    spans = [[n / 1e4, 5e-5, "s", "guest"] for n in range(20_000)]
    held = timeline("t", "a", [{"name": "a", "spans": spans}], 2.0)
    clicks = "for (let n = 0; n < 8; n++) document.querySelector('.bar button').click();"
    text = page("t", "", [("s", figure("t", held, kind="timeline"))], SCRIPT.read_text() + clicks)
    outline = boxes(Shown(text, tmp_path).dom)["0", "0"]
    assert 40 < outline.count("z") < 120  # 2 s / 2^8 at 10,000 spans a second, drawn one by one.


def _timeline(text: str) -> str:
    found = re.search(r'<figure class="wide timeline">.*?</figure>', text, re.S)
    assert found is not None
    return found[0]
