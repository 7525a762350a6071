"""`swapproof demo --once`: each of its eight stories ends as the demo announces it."""

import os
import re
from pathlib import Path

import psutil
import pytest

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Installation


@pytest.mark.verify
@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.req("F1", "F2", "F3", "F4", "B3")
def test_the_stories_end_as_told_and_no_request_fails(installing: Installing) -> None:
    """One demo after the other: two that start at once may choose the same free ports."""
    for swap in (False, True):
        ends_as_told(installing({"providers": {}}), swap=swap)


def ends_as_told(place: Installation, *, swap: bool) -> None:
    """Requires that the demo ends as its stories tell.

    Args:
        swap: the two models have exchanged their skills. The simulator alone knows.
    """
    scratch = place.folder / "scratch"
    scratch.mkdir()
    variables = {"COLUMNS": "160", "TMPDIR": str(scratch)}
    said = place.cli(
        "demo",
        "--once",
        *["--swap"] * swap,
        code=0,
        env=variables,
    ).out

    better, worse = ("lite", "2") if swap else ("2", "lite")
    assert f"sim/aurora-{better}: PASSED, then promoted" in said
    assert f"sim/aurora-{worse}: FAILED, then closed" in said
    # The reason is the control plane's or that of a router's own guard: whichever is first.
    named = "PASSED, then rolled back; the reason names"
    # This one fails at later turns only.
    assert re.search(f"sim/nimbus-1: {named} (later|400 bad request)", said)
    # This one hangs.
    assert re.search(f"sim/nimbus-2: {named} (timeout|no answer in time)", said)
    # The incumbent answers each request that they fail.
    for model in ("nimbus-1", "nimbus-2"):
        assert re.search(
            rf"sim/{model} failed (\d+) requests?; sim/aurora-1 answered \1 of them, .*; "
            "0 callers got an error",
            said,
        )
    if not swap:
        assert "chat-night: sim/aurora-3: PASSED, then promoted" in said
        assert "chat-web: an agent's tool loop survived its model's swap" in said
    assert "chat-parcel: sim/comet-mini: PASSED" in said
    assert re.search(
        r"people labelled .* By people's preference \(\d+ labels by 2 people\): PASSED",
        said,
    )
    assert "provider lost under traffic, no request failed" in said
    assert "an agent's tool loop survived its model's swap and its rollback" in said
    assert "requests of callers, 0 failed" in said
    # Raw SQL was tried, and the database refused it each time.
    assert said.count("refused:") == 5
    assert "✕" not in said
    assert not running_in(scratch)


def running_in(folder: Path) -> list[str]:
    """Command lines of the processes that name the folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(folder) in words and process.pid != os.getpid():
            found.append(words)
    return found
