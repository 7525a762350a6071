"""`swapgate demo agents`, as a user runs it, with a person who approves in a real browser."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_dashboard_actions import sign_in
from tests.support.browser.dashboard_server import Listener

expect.set_options(timeout=90_000)
ROOT = Path(__file__).parents[2]
# Six processes start on a machine that may be busy.
PATIENCE_S = 600
SWITCH = "concierge wants to switch to south/sage-1. Approve?"
SUB_TASKS = "concierge wants to run sub-tasks on"


@dataclass
class RunningDemo:
    """The demo's process and what it prints."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def await_text(self, pattern: str) -> re.Match[str]:
        end = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self.text())) is None:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < end, self.text()
            time.sleep(0.2)
        return found


@contextmanager
def running_demo(folder: Path) -> Iterator[RunningDemo]:
    log = folder / "demo.txt"
    variables = {"COLUMNS": "200", "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "swapgate", "demo", "agents"],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **variables},
        )
    try:
        yield RunningDemo(process, log)
    finally:
        process.terminate()
        process.wait(120)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.req("C1", "C4", "C5", "C6", "E1", "E2", "E5")
def test_an_agent_changes_models_with_a_persons_consent_and_keeps_all_that_was_said(
    page: Page, tmp_path: Path
) -> None:
    listener = Listener(page)
    with running_demo(tmp_path) as demo:
        address = demo.await_text(r"(http://127\.0\.0\.1:\d+)/sessions")[1]
        key = demo.await_text(r"sign in with the key (\S+)")[1]
        page.goto(f"{address}/sessions")
        expect(page.locator("h1")).to_contain_text("1 switch waits for approval: concierge")
        sign_in(page, key)
        approve(page, SWITCH, "<b>sage-1</b> writes better", "$3.00 in, $15.00 out")

        # The page shows by itself what is new.
        expect(page.locator(".stMain")).to_contain_text(SUB_TASKS)
        approve(page, SUB_TASKS, "backup/scribe-1", "backup/scribe-2", "south/sage-lite")

        demo.await_text("running until Ctrl-C")

        assert "✕" not in demo.text()
        assert_transcript(page)
        listener.assert_quiet()
    assert demo.process.returncode == 0
    assert not list(tmp_path.glob("swapgate-demo-*"))


def approve(page: Page, question: str, *facts: str) -> None:
    # The one of before the sign-in may stand there for a moment, disabled.
    page.get_by_role("button", name="Approve …", disabled=False).click()
    dialog = page.get_by_role("dialog")
    for fact in (question, *facts, "Time left"):
        expect(dialog).to_contain_text(fact)
    dialog.get_by_role("button", name="Approve the switch").click()
    expect(page.get_by_text("demo-approver approved the switch")).to_be_visible()


def assert_transcript(page: Page) -> None:
    """Who answered what, and that the fallback says whose place it took."""
    expect(page.locator("h1")).to_contain_text("No switch waits for a person")
    page.get_by_role("link", name="concierge · se_").click()
    transcript = page.locator(".sg-transcript")
    for model in ("north/scout-1", "backup/scout-2", "south/sage-1"):
        expect(transcript).to_contain_text(model)
    expect(transcript).to_contain_text("⇄ From here on south/sage-1, by demo-approver")
    expect(transcript.locator(".message").last).to_contain_text("It was order A-1815")
    expect(transcript.locator(".message").last).to_contain_text("▼ instead of")
    expect(page.get_by_text("3 spawned sessions")).to_be_visible()
    unpriced = page.locator("tr", has_text="backup/scribe-2").last
    expect(unpriced.get_by_text("price unknown")).to_have_count(2)
