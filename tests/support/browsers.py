"""A real browser, for pages that must be whole in themselves.

Its only way out is a proxy that is ours, so whatever a page asks for is seen. Here Chromium is run
by its command line; tests/workers/pictures/test_playwright.py drives it, with the extra `browser`.
"""

import re
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

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

needs_browser = [
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
