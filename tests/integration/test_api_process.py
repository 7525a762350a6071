"""The control process as a process: it serves, and it ends when it is told to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.support.site.processes import free_port

WORD = "scrape-me"


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.verify
def test_it_serves_until_a_signal_and_then_ends_cleanly(
    ending: signal.Signals, tmp_path: Path
) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "SWAPGATE_SECRET": "a secret of the tests",
        "SWAPGATE_METRICS_TOKEN": WORD,
        "SWAPGATE__CONTROL__PORT": str(port),
        "PYTHONPATH": str(Path(__file__).parent.parent.parent),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", "from harness.api.app import run_control; run_control(None)"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until_ready(process, port)
        token = {"authorization": f"Bearer {WORD}"}
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=token)
        assert 'swapgate_proposals{phase="canary"} 0.0' in answer.text
    finally:
        process.send_signal(ending)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def wait_until_ready(process: subprocess.Popen[str], port: int) -> None:
    while process.poll() is None:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60)
        except httpx.ConnectError:
            time.sleep(0.1)
            continue
        assert answer.json() == {"status": "ok"}
        return
    raise AssertionError(process.communicate()[1])
