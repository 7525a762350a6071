"""Runs the dashboard in a process of its own for browser tests. `Listener` collects a page's
console messages and the hosts that it calls; `assert_accessible` asks axe-core about it.
"""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, Request, expect

from tests.support.site.processes import free_port

START_S = 240
STOP_S = 60
# Streamlit's navigation puts its groups between the items of a list.
NOT_OURS = {"exclude": [["[data-testid=stSidebarNavItems]"]]}
PROBED = ("/_stcore/health", "/_stcore/host-config")


@contextmanager
def dashboard(config: Path, port: int | None = None) -> Iterator[str]:
    """A cold server on `config`; its address. Ended with SIGTERM, as a supervisor does."""
    port = port or free_port()
    log = config.parent / f"dashboard-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [
                sys.executable,
                "-m",
                "dashboard.serve",
                f"--config={config}",
                f"--port={port}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        await_answer(f"{address}/healthz", process, log)
        yield address
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def await_answer(
    url: str,
    process: subprocess.Popen[bytes],
    log: Path,
) -> None:
    """Waits until a server says 200, or has ended."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            if status(url) == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing answers at {url}: {log.read_text()}")


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as reply:  # noqa: S310 - loopback
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


@dataclass
class Listener:
    page: Page
    lines: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.lines.append(str(error)))
        self.page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not self._allowed(message):
            self.lines.append(f"{message.type}: {message.text} ({message.location})")

    def _allowed(self, message: ConsoleMessage) -> bool:
        """Streamlit probes for its base path on a deep link; Vega warns about a legend."""
        probe = "404" in message.text and message.location["url"].endswith(PROBED)
        return probe or "legend" in message.text

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob"):
            self.hosts.add(parts.hostname or "")

    def assert_quiet(self) -> None:
        assert self.lines == []
        assert self.hosts <= {"127.0.0.1"}


def send_key(page: Page, key: str) -> None:
    page.get_by_label("Management key", exact=True).fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def sign_in(page: Page, key: str) -> None:
    page.get_by_role("link", name="Sign in").click()
    send_key(page, key)


def assert_no_sideways_scroll(page: Page) -> None:
    """Charts and tables follow a new width a moment later."""
    for box in (
        "document.scrollingElement",
        "document.querySelector('.stMain')",
    ):
        page.wait_for_function(f"{box}.scrollWidth <= innerWidth")


def assert_accessible(page: Page) -> None:
    """Requires that axe-core finds nothing serious on the page as it stands."""
    # What is being read anew is dimmed meanwhile.
    page.wait_for_function("!document.querySelector('[data-stale=true]')")
    found = [
        (violation["id"], [node["html"] for node in violation["nodes"]])
        for violation in Axe().run(page, NOT_OURS).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert found == [], found
