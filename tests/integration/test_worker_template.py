"""Eval workers forked by a template, as processes, killed with real signals. What they run is
three lines here; the demo's tests run the real ones.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from harness.app.eval_workers import processes as eval_worker_processes
from harness.app.eval_workers.processes import SubprocessWorkers
from tests.support.router.router_process import eventually

pytestmark = pytest.mark.skipif(
    not eval_worker_processes.SUPPORTED, reason="templates need Linux"
)

# Each run's name is the Python that its worker runs.
TEMPLATE = """
import os, sys, time
from pathlib import Path
from harness.app.eval_workers.processes import serve_forks
Path("template").write_text(str(os.getpid()))
asked = serve_forks()
if asked is not None:
    exec(asked.run)
"""
CONTROL = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.integration.test_worker_template import SLEEPS, build
workers = build(Path.cwd())
workers.start(SLEEPS)
time.sleep(600)
"""
SLEEPS = "Path('worker').write_text(str(os.getpid())); time.sleep(600)"
ROOT = Path(__file__).parents[2]


def build(folder: Path) -> SubprocessWorkers:
    return SubprocessWorkers(
        ["false"],
        template=[sys.executable, "-c", TEMPLATE],
        variables_of=lambda run: {
            "KEY_OF_RUN": str(len(run)),
            "PYTHONPATH": str(ROOT),
        },
        cwd=folder,
    )


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SubprocessWorkers]:
    monkeypatch.setattr(
        eval_worker_processes,
        "KEPT_VARIABLES",
        (*eval_worker_processes.KEPT_VARIABLES, "PYTHONPATH"),
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "not for workers")
    started = build(tmp_path)
    yield started
    started.stop_all()


def pid_in(file: Path) -> int:
    eventually(lambda: file.exists() and file.read_text())
    return int(file.read_text())


def gone(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def ended(workers: SubprocessWorkers) -> list[tuple[str, str, int, str]]:
    found: list[tuple[str, str, int, str]] = []

    def some() -> bool:
        found.extend(workers.reap())
        return bool(found)

    eventually(some)
    return found


@pytest.mark.req("F2")
def test_a_forked_worker_has_its_own_environment_and_its_end_is_reported(
    workers: SubprocessWorkers, tmp_path: Path
) -> None:
    shows = "print(dict(os.environ), file=sys.stderr); sys.exit(3)"
    owner = workers.start(shows)
    assert workers.alive() == {shows: owner}
    [(run, reported, code, words)] = ended(workers)

    assert (run, reported, code) == (shows, owner, 3)
    assert f"'KEY_OF_RUN': '{len(shows)}'" in words
    assert "SECRET_OF_THE_PARENT" not in words
    template = psutil.Process(pid_in(tmp_path / "template"))
    assert "KEY_OF_RUN" not in template.environ()
    assert workers.alive() == {}


@pytest.mark.req("F2")
def test_runs_stop_one_by_one_and_all_at_the_end(
    workers: SubprocessWorkers, tmp_path: Path
) -> None:
    runs = [f"Path('{name}').write_text(str(os.getpid())); time.sleep(600)" for name in "ab"]
    for run in runs:
        workers.start(run)
    first, second = (pid_in(tmp_path / name) for name in "ab")
    assert psutil.Process(first).ppid() == psutil.Process(second).ppid()
    workers.stop(runs[0])

    assert [(run, code) for run, _, code, _ in ended(workers)] == [(runs[0], -signal.SIGTERM)]
    assert list(workers.alive()) == [runs[1]]
    workers.stop_all()
    assert gone(second)
    assert gone(pid_in(tmp_path / "template"))


@pytest.mark.req("F2")
def test_workers_end_with_a_killed_template_and_the_next_run_has_a_new_one(
    workers: SubprocessWorkers, tmp_path: Path
) -> None:
    workers.start(SLEEPS)
    worker = pid_in(tmp_path / "worker")
    template = pid_in(tmp_path / "template")
    os.kill(template, signal.SIGKILL)
    eventually(lambda: gone(template) and gone(worker))
    workers.start("sys.exit(0)")

    found = ended(workers)
    if len(found) == 1:
        found += ended(workers)
    assert {(run, code) for run, _, code, _ in found} == {
        (SLEEPS, -signal.SIGTERM),
        ("sys.exit(0)", 0),
    }
    assert pid_in(tmp_path / "template") != template


@pytest.mark.req("F2")
def test_workers_end_with_a_killed_control_process(tmp_path: Path) -> None:
    control = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", CONTROL, str(ROOT)],
        cwd=tmp_path,
        env=dict(os.environ),
    )
    worker = pid_in(tmp_path / "worker")
    template = pid_in(tmp_path / "template")
    control.kill()
    control.wait()

    eventually(lambda: gone(worker) and gone(template))


def test_a_template_that_cannot_start_says_why(
    workers: SubprocessWorkers, tmp_path: Path
) -> None:
    (tmp_path / "template").mkdir()
    workers.start(SLEEPS)

    [(_, _, code, words)] = ended(workers)
    assert code == 1
    assert "IsADirectoryError" in words


def test_an_idle_template_gives_its_memory_back(
    workers: SubprocessWorkers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers.start("sys.exit(0)")
    ended(workers)
    template = pid_in(tmp_path / "template")
    workers.reap()
    assert not gone(template)
    monkeypatch.setattr(eval_worker_processes, "IDLE_TEMPLATE_S", 0.0)
    time.sleep(0.01)
    workers.reap()

    assert gone(template)
