"""`swapproof gate run` and the GitHub Action around it: real processes, a simulated
provider.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from evals.sim import server
from tests.support.providers import simulator_thread

pytestmark = pytest.mark.slow

ACTION = Path(__file__).resolve().parents[2] / ".github" / "actions" / "gate" / "action.yml"
TIMEOUT_S = 600


@pytest.fixture(scope="module")
def sim_url() -> Iterator[str]:
    with simulator_thread.serve_in_thread(server.simulator(time_scale=0)) as url:
        yield url


@pytest.fixture
def folder(sim_url: str, tmp_path: Path) -> Path:
    config = {
        "providers": {"sim": {"kind": "sim", "api_base": f"{sim_url}/v1"}},
        "policies": {"quick": {"gate": {"n_max": 120, "infra_patience_s": 0.1}}},
    }
    (tmp_path / "swapproof.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith("SWAPPROOF")
    }
    return {
        **ours,
        "PATH": f"{Path(sys.executable).parent}:{ours['PATH']}",
        **more,
    }


def gate_run(
    folder: Path,
    *words: str,
    candidate: str = "sim/sim-better",
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "swapproof",
        "gate",
        "run",
        "--policy",
        "quick",
    ]
    arms = ["--incumbent", "sim/sim-base", "--candidate", candidate]
    return subprocess.run(  # noqa: S603 - our own command
        [
            *command,
            *arms,
            *words,
        ],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture
def provider_is_away(folder: Path) -> None:
    config = yaml.safe_load((folder / "swapproof.yaml").read_text())
    config["providers"]["sim"]["api_base"] = "http://127.0.0.1:9/v1"
    (folder / "swapproof.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.req("F10")
@pytest.mark.usefixtures("provider_is_away")
@pytest.mark.verify
def test_a_provider_that_is_away_is_not_measured_in_time(folder: Path) -> None:
    in_time = gate_run(folder, "--suite", "tickets", "--timeout", "1")

    assert in_time.returncode == 5, in_time.stderr


@pytest.mark.req("F10")
@pytest.mark.verify
@pytest.mark.usefixtures("provider_is_away")
def test_a_provider_that_stays_away_is_given_up(folder: Path) -> None:
    given_up = gate_run(folder, "--suite", "tickets")

    assert given_up.returncode == 1, given_up.stderr
    assert given_up.stdout.startswith("NOT MEASURED: waited for sim since")
    assert "connection refused" in given_up.stdout
    assert "next: run `swapproof doctor`" in given_up.stdout


@pytest.mark.req("F10")
def test_a_suite_that_nobody_knows_is_named_with_the_nearest(folder: Path) -> None:
    done = gate_run(folder, "--suite", "ticket")

    assert done.returncode not in (0, 3, 4, 5)
    assert "did you mean 'tickets'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.req("F10")
@pytest.mark.parametrize(
    ("candidate", "code"), [("sim/sim-better", "0"), ("sim/sim-worse", "3")]
)
@pytest.mark.verify
def test_the_action_runs_its_step_with_inputs_as_data(
    folder: Path,
    candidate: str,
    code: str,
) -> None:
    action = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
    inputs = {name: setting.get("default", "") for name, setting in action["inputs"].items()}
    inputs |= {
        "suites": "tickets\n\n",
        "incumbent": "sim/sim-base",
        "candidate": candidate,
        "policy": "quick",
        "version": "",
        "reports": "reports; touch hacked",
    }
    step = next(step for step in action["runs"]["steps"] if step.get("id") == "gate")
    assert "${{" not in step["run"]
    variables = {
        name: inputs[value.removeprefix("${{ inputs.").removesuffix(" }}")]
        for name, value in step["env"].items()
    }
    outputs = folder / "outputs"
    summary = folder / "summary"

    done = subprocess.run(  # noqa: S603 - the action's own step
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],  # noqa: S607 - as the runner calls it
        cwd=folder,
        env=environment(
            **variables,
            GITHUB_OUTPUT=str(outputs),
            GITHUB_STEP_SUMMARY=str(summary),
        ),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert str(done.returncode) == code, done.stderr
    assert outputs.read_text() == f"exit-code={code}\n"
    assert summary.read_text().startswith("# PASSED" if code == "0" else "# FAILED")
    assert (folder / "reports; touch hacked" / "junit.xml").exists()
    assert not (folder / "hacked").exists()


@pytest.mark.req("F10")
def test_every_input_of_the_action_reaches_its_steps() -> None:
    text = ACTION.read_text(encoding="utf-8")
    for name in yaml.safe_load(text)["inputs"]:
        assert f"inputs.{name}" in text


INTERRUPTED = 130


@pytest.fixture(scope="module")
def sim_address() -> Iterator[str]:
    with simulator_thread.serve_in_thread(server.simulator(time_scale=2)) as url:
        yield url


def trying(
    folder: Path,
    sim_address: str,
    candidate: str,
) -> subprocess.Popen[str]:
    items = ({"input": f"{n} + {n}", "target": f"{2 * n}"} for n in range(60))
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    ours = {name: value for name, value in os.environ.items() if "_API_KEY" not in name}
    words = ["try", "--suite", "items.jsonl", "--incumbent", "sim/sim-base"]
    return subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "swapproof", *words, "--candidate", candidate],
        cwd=folder,
        env={**ours, "SIM_BASE_URL": f"{sim_address}/v1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.req("F2", "F10")
@pytest.mark.verify
def test_what_was_paid_for_is_kept_and_the_next_call_goes_on(
    sim_address: str, tmp_path: Path
) -> None:
    first = trying(tmp_path, sim_address, "sim/sim-better")
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("asking, ") and int(line.split()[1]) > 0:
            os.killpg(first.pid, signal.SIGINT)
            break
    _, said = first.communicate(timeout=60)
    second = trying(tmp_path, sim_address, "sim/sim-better")
    shown, progress = second.communicate(timeout=300)

    assert first.returncode == INTERRUPTED
    assert "the same command continues there" in said
    counts = [line.split()[1] for line in progress.splitlines() if line.startswith("asking, ")]
    assert int(counts[0]) > 0
    assert second.returncode in {0, 3, 4}
    assert "next: " in shown
    last_line = shown.splitlines()[-1].strip()
    assert last_line.startswith(("swapproof try --suite items.jsonl", "swapproof init --yes"))
    page = (tmp_path / "swapproof-try.html").read_text()
    assert "<h2>Cost and time of an answer</h2>" in page


@pytest.mark.req("F2", "F10")
def test_a_model_without_a_price_needs_one_and_no_higher_limit(
    sim_address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sim_address}/v1")
    (tmp_path / ".env").write_text("OPENAI_API_KEY=k")
    asked = trying(tmp_path, sim_address, "openai/sim-unheard")
    _, said = asked.communicate(timeout=60)

    assert asked.returncode == 1
    assert "Write it under `providers.openai.prices` in ./swapproof.yaml" in said
    assert "--max-usd" not in said
    assert (tmp_path / ".swapproof-try/.gitignore").read_text() == "*\n"


@pytest.mark.req("F2", "F10")
@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ("gpt-5-mini", "openai needs a key: export OPENAI_API_KEY"),
        (
            "nowhere/model",
            "'nowhere' is not a known provider: use one of openai",
        ),
        ("unheard-of", "is not a target: write provider/model"),
        (
            "own/model",
            "/swapproof.yaml:3: unknown key 'providers.own.colour'",
        ),
    ],
)
def test_a_model_that_cannot_be_asked_is_bad_input(
    sim_address: str,
    tmp_path: Path,
    candidate: str,
    message: str,
) -> None:
    if candidate == "own/model":
        (tmp_path / "swapproof.yaml").write_text("providers:\n  own:\n    colour: red\n")
    asked = trying(tmp_path, sim_address, candidate)
    _, said = asked.communicate(timeout=60)

    assert asked.returncode == 2
    assert message in said
    assert not (tmp_path / ".swapproof-try").exists()
