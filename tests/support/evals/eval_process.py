"""Evals run in a process of their own: `python -m tests.support.evals.eval_process`.

Reads a pickled list of assignments on stdin; prints one JSON line per assignment on stdout.
"""

import contextlib
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evals.suites.configured_suites import ConfiguredSuites
from harness.evals.ports import EvalJob, EvalRunner
from harness.evals.settings import SuiteSettings
from harness.gate.run import Sample
from tests.support.site.small_disk import full


@dataclass(frozen=True)
class Assignment:
    """One run. stop_after, over_after, fail_after: samples after which the run is stopped, its
    budget is spent, or the store fails. resume: go on where the assignment before ended.
    fill: a disk on which not a byte is left after fill_after samples, until the run has ended.
    """

    suites: Mapping[str, SuiteSettings]
    job: EvalJob
    stop_after: int | None = None
    over_after: int | None = None
    fail_after: int | None = None
    resume: bool = False
    fill: Path | None = None
    fill_after: int = 0


def carry_out(
    assignments: Sequence[Assignment],
    timeout_s: float = 240,
    environment: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """In a fresh process, with these variables beside its own; what each one gave: `state`,
    `samples`, `error`, `needless` (modules that were loaded).
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.evals.eval_process"],
        cwd=Path(__file__).parents[3],
        input=pickle.dumps(list(assignments)),
        stdout=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        check=True,
        timeout=timeout_s,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def one(
    assignment: Assignment,
    runner: EvalRunner,
    before: Mapping[str, Any],
) -> dict[str, Any]:
    """Runs one assignment.

    Args:
        before: the result of the assignment that this one may resume.
    """
    job = assignment.job
    if assignment.resume:
        done = frozenset((sample["item"], sample["epoch"]) for sample in before["samples"])
        job = replace(job, stored=done)
    samples: list[Sample] = []
    disk = contextlib.ExitStack()

    def fill() -> None:
        if assignment.fill is not None and len(samples) == assignment.fill_after:
            disk.enter_context(full(assignment.fill))

    def on_sample(sample: Sample) -> bool:
        if assignment.fail_after is not None and len(samples) >= assignment.fail_after:
            raise OSError("the store is away")
        samples.append(sample)
        fill()
        return assignment.over_after is None or len(samples) < assignment.over_after

    def stop() -> bool:
        return assignment.stop_after is not None and len(samples) >= assignment.stop_after

    state = ""
    error = ""
    try:
        with disk:
            fill()
            state = runner.run(job, on_sample, stop).value
    except Exception as failed:  # noqa: BLE001 - told to the parent
        error = f"{type(failed).__name__}: {failed}"
    return {
        "state": state,
        "error": error,
        "remark": runner.remark,
        "calibration": runner.calibration and asdict(runner.calibration),
        "samples": [asdict(sample) for sample in samples],
        "needless": sorted({"acp", "anthropic", "openai"} & sys.modules.keys()),
    }


def main() -> None:
    from evals.runner.inspect_runner import InspectRunner  # noqa: PLC0415 - only the child pays for Inspect
    from router.upstream.transports import ProviderClient  # noqa: PLC0415

    logging.basicConfig(stream=sys.stderr)
    result: dict[str, Any] = {}
    for given in pickle.load(sys.stdin.buffer):  # noqa: S301 - from our own parent
        run = given.job.run
        if not run.suite_digest:
            run = replace(
                run,
                suite_digest=ConfiguredSuites(given.suites).pin(run.suite).digest,
            )
        assignment = replace(given, job=replace(given.job, run=run))
        result = one(
            assignment,
            InspectRunner(given.suites, calls=ProviderClient),
            result,
        )
        print(json.dumps(result), flush=True)  # noqa: T201 - the answer to the parent


if __name__ == "__main__":
    main()
