"""`swapgate try --suite` asks two models a team's own questions, without an installation."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.sim import server
from tests.support.providers import simulator_thread

pytestmark = [pytest.mark.req("F2", "F10"), pytest.mark.slow]
INTERRUPTED = 130


@pytest.fixture(scope="module")
def sim_url() -> Iterator[str]:
    with simulator_thread.serve_in_thread(server.simulator(time_scale=0.5)) as url:
        yield url


def trying(folder: Path, sim_url: str, candidate: str) -> subprocess.Popen[str]:
    items = ({"input": f"{n} + {n}", "target": f"{2 * n}"} for n in range(60))
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    ours = {name: value for name, value in os.environ.items() if "_API_KEY" not in name}
    words = ["try", "--suite", "items.jsonl", "--incumbent", "sim/sim-base"]
    return subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "swapgate", *words, "--candidate", candidate],
        cwd=folder,
        env={**ours, "SIM_BASE_URL": f"{sim_url}/v1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.verify
def test_what_was_paid_for_is_kept_and_the_next_call_goes_on(
    sim_url: str, tmp_path: Path
) -> None:
    first = trying(tmp_path, sim_url, "sim/sim-better")
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("asking, ") and int(line.split()[1]) > 0:
            os.killpg(first.pid, signal.SIGINT)
            break
    _, said = first.communicate(timeout=60)
    second = trying(tmp_path, sim_url, "sim/sim-better")
    shown, progress = second.communicate(timeout=300)

    assert first.returncode == INTERRUPTED
    assert "the same command goes on from it" in said
    counts = [line.split()[1] for line in progress.splitlines() if line.startswith("asking, ")]
    assert int(counts[0]) > 0
    assert second.returncode in {0, 3, 4}
    assert "next: " in shown
    page = (tmp_path / "swapgate-try.html").read_text()
    assert "<h2>Cost and time of an answer</h2>" in page


def test_a_model_without_a_price_needs_one_and_no_higher_limit(
    sim_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sim_url}/v1")
    (tmp_path / ".env").write_text("OPENAI_API_KEY=k")
    asked = trying(tmp_path, sim_url, "openai/sim-unheard")
    _, said = asked.communicate(timeout=60)

    assert asked.returncode == 1
    assert "Write it under `providers.openai.prices` in ./swapgate.yaml" in said
    assert "--max-usd" not in said
    assert (tmp_path / ".swapgate-try/.gitignore").read_text() == "*\n"


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ("gpt-5-mini", "openai needs a key: export OPENAI_API_KEY"),
        ("nowhere/model", "'nowhere' is no known provider: take one of openai"),
        ("unheard-of", "is not a target: write provider/model"),
    ],
)
def test_a_model_that_cannot_be_asked_is_bad_input(
    sim_url: str, tmp_path: Path, candidate: str, message: str
) -> None:
    asked = trying(tmp_path, sim_url, candidate)
    _, said = asked.communicate(timeout=60)

    assert asked.returncode == 2
    assert message in said
    assert not (tmp_path / ".swapgate-try").exists()
