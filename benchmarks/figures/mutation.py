"""Whether tests notice a changed line:
`python -m benchmarks.figures.mutation AREA [--sample 150] [--seed 16]`.

One small change at a time is put into the area's functions, in a process that was forked from
one in which the product is imported; those of the tests near the area that run the changed
statement must fail there, one at least. Where an area has
more changes than the sample, or than the minutes allow, they are drawn at random with the seed.
A goal is measured with a seed whose survivors nobody has read: tests that were written for the
survivors of a seed notice them.

A change counts as not noticed where no test runs its line, where it changes nothing that could
be noticed, where it could not be put in, and where pytest ended without a failed test. Every
CONTROL_EVERY-th run has no change: a test that fails then fails by itself, and the row says how
many did.
"""

import argparse
import importlib
import os
import pickle
import random
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import pytest

from benchmarks.figures.covering_tests import CoveringTests, LineTracer
from benchmarks.figures.mutants import Mutant, apply_mutant, mutants
from benchmarks.figures.record import RunResult, record_run

SEED: Final = 16
CONTROL_EVERY: Final = 15
# A change that makes a loop endless is noticed: a run takes so many times the usual time.
PATIENCE: Final = 10.0
AT_LEAST_S: Final = 120.0
NOT_APPLIED: Final = 77
NOT_RUN: Final = 78
# Not the change's doing: the system, or a person, ended the tests.
ENDED: Final = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, NOT_RUN)


@dataclass(frozen=True)
class Area:
    """files, tests: as globs."""

    files: Sequence[str]
    tests: Sequence[str]


AREAS: Final = {
    "gate": Area(
        ("harness/gate/offline/*.py",),
        (
            "tests/unit/test_gate_*.py",
            "tests/unit/test_lower_bound.py",
            "tests/unit/test_unseen_loss.py",
            "tests/unit/test_futility.py",
            "tests/unit/test_format_rules.py",
            "tests/unit/test_verdict_basis.py",
            "tests/unit/test_recomputed_pool.py",
        ),
    ),
    "breaker": Area(
        ("harness/domain/reliability/breaker.py",),
        ("tests/unit/test_breaker.py", "tests/unit/test_router_breakers.py"),
    ),
    "rollout": Area(
        ("harness/domain/canary/*.py", "harness/control/canary/*.py"),
        (
            "tests/unit/test_canary_*.py",
            "tests/unit/test_guardrail*.py",
            "tests/unit/test_holds.py",
            "tests/unit/test_local_guard.py",
            "tests/unit/test_key_ledger.py",
            "tests/unit/test_segments.py",
            "tests/unit/test_traffic_rate.py",
            # Those that move a canary through the store, all of it in one process.
            "tests/integration/test_bake.py",
            "tests/integration/test_canary_replay.py",
            "tests/integration/test_control_alerts.py",
            "tests/integration/test_control_faults.py",
            "tests/integration/test_data_classes.py",
            "tests/integration/test_four_eyes.py",
            "tests/integration/test_freezes.py",
            "tests/integration/test_observe_only.py",
            "tests/integration/test_recomputed.py",
            "tests/integration/test_second_approvals.py",
        ),
    ),
    "access": Area(
        ("harness/domain/operations/access.py", "harness/api/frame/access.py"),
        ("tests/unit/test_access.py", "tests/unit/test_principals.py"),
    ),
}


def expand(globs: Sequence[str]) -> list[Path]:
    return [file for glob in globs for file in sorted(Path().glob(glob))]


def run_tests(tests: Sequence[str], *, plugins: Sequence[object] = (), more: str = "") -> int:
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # The product, which is imported before pytest, imports anyio, which is a plugin too.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    kinds = ["-m", "not (postgres or browser or slow or verify or soak)"]
    return int(pytest.main([*options, *kinds, *more.split(), *tests], plugins=[*plugins]))


def trace_tests(files: Sequence[Path], tests: Sequence[str]) -> CoveringTests:
    """Runs the tests without any change, in a process of their own. Raises RuntimeError where
    one fails.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        tracer = LineTracer(files)
        code = run_tests(tests, plugins=[tracer])
        found = tracer.collect() if code == 0 else None
        with os.fdopen(writing, "wb") as out:
            pickle.dump(found, out)
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        found = pickle.load(told)  # noqa: S301 - from our own process
    os.waitpid(pid, 0)
    if found is None:
        raise RuntimeError("the tests fail without any change")
    return cast("CoveringTests", found)


def in_fork(tests: Sequence[str], mutant: Mutant | None, limit_s: float) -> int:
    """The exit code of the tests; that of a signal where they take too long. mutant: None for
    a run without a change.
    """
    pid = os.fork()
    if pid == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        code = NOT_APPLIED
        try:
            if mutant is None or apply_mutant(mutant):
                signal.setitimer(signal.ITIMER_REAL, limit_s)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                code = run_tests(tests)
        except BaseException:  # noqa: BLE001 - whatever it is, no test ran
            traceback.print_exc()
            code = NOT_RUN
        finally:
            sys.stdout.flush()  # what failed, which _exit would drop
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return exit_code(status, mutant)


def exit_code(status: int, mutant: Mutant | None) -> int:
    """Raises RuntimeError for tests that were ended from outside, or did not run: they noticed
    nothing.
    """
    code = os.waitstatus_to_exitcode(status)
    if code in ENDED:
        raise RuntimeError(f"the tests did not run to their end ({code}): {mutant}")
    return code


def is_noticed(code: int) -> bool:
    """Whether a test failed, took too long, or crashed the interpreter. NOT_APPLIED, and
    pytest's other exit codes, such as that for a test that is not found, say that none ran.
    """
    return code == pytest.ExitCode.TESTS_FAILED or code < 0


def run(name: str, sample: int, minutes: float, seed: int) -> RunResult:
    area = AREAS[name]
    tests, files = expand(area.tests), expand(area.files)
    for file in files:
        importlib.import_module(".".join(file.with_suffix("").parts))
    began = time.monotonic()
    names = [str(test) for test in tests]
    run_tests(names, more="--collect-only -qq")  # imports them, once for all processes
    covering = trace_tests(files, names)
    every = [mutant for file in files for mutant in mutants(file)]
    random.Random(seed).shuffle(every)  # noqa: S311 - seeded
    survivors: list[str] = []
    count = endless = controls = flaky = 0
    until = began + minutes * 60
    for mutant in every:
        if count >= sample or time.monotonic() > until:
            break
        chosen = covering.select(mutant)
        usual_s = sum(covering.seconds[name] for name in chosen)
        limit_s = AT_LEAST_S + PATIENCE * usual_s
        code = in_fork(chosen, mutant, limit_s) if chosen else 0
        count += 1
        endless += code == -signal.SIGALRM
        if chosen and count % CONTROL_EVERY == 0:
            controls += 1
            flaky += in_fork(chosen, None, limit_s) != 0
        if not is_noticed(code):
            survivors.append(str(mutant))
            print(f"not noticed: {mutant}", flush=True)
    drawn = f"{count} drawn from {len(every)} with seed {seed}" if count < len(every) else "all"
    return RunResult(
        count,
        len(survivors),
        f"{drawn.capitalize()}, {len(files)} files; {endless} were noticed by tests that took "
        f"far too long; of {controls} runs without a change {flaky} failed."
        f"{_in_words(survivors)}",
        survivors,
        whole=count == min(sample, len(every)),
    )


def _in_words(survivors: Sequence[str]) -> str:
    return f" Not noticed: {'; '.join(survivors)}." if survivors else ""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("area", choices=AREAS)
    options.add_argument("--sample", type=int, default=150)
    options.add_argument("--seed", type=int, default=SEED)
    options.add_argument("--minutes", type=float, default=15.0, help="at most")
    chosen = options.parse_args()
    os.environ["SWAPGATE_HYPOTHESIS"] = "ci"  # the same examples for each change
    return record_run(
        f"mutation-{chosen.area}",
        lambda: run(chosen.area, chosen.sample, chosen.minutes, chosen.seed),
    )


if __name__ == "__main__":
    sys.exit(main())
