"""Writes the result of a long run beside this module, one file for each figure, from which
`swapgate docs generate` writes docs/reference/figures.md.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from harness.runtime.clock import SystemClock

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = Path(__file__).parent / "results"
# Its newest commit names what was measured; a branch's own commits may be rebased.
PRODUCT: Final = ("swapgate", "harness", "router", "evals", "dashboard", "migrations")


@dataclass
class RunResult:
    """What a run did and found.

    failures: of the count; of a mutation run, the survivors.
    faults: the first of them, in words.
    detail: what the count is made of. whole: the sample that was asked for was tried, and not
    the part of it for which there was time.
    """

    count: int
    failures: int
    detail: str = ""
    faults: list[str] = field(default_factory=list)
    whole: bool = True


def record_run(figure: str, run: Callable[[], RunResult], *, more: bool = False) -> int:
    """Does the run and writes its file; the exit code, 1 for a run with failures.

    more: adds to the stored result, failures too, so that a figure may be made of several runs.
    """
    began, commit, load = time.monotonic(), product_commit(), os.getloadavg()[0]
    result = run()
    seconds = round(time.monotonic() - began, 1)
    for fault in result.faults:
        print(fault)
    if not result.count:
        return 1  # nothing happened that could be told
    write_result(figure, result, seconds=seconds, commit=commit, load=load, more=more)
    return 1 if result.failures else 0


def write_result(
    figure: str,
    result: RunResult,
    *,
    seconds: float,
    commit: str,
    load: float,
    more: bool = False,
) -> None:
    """load: of the machine before the run, in processes that want a core."""
    content: dict[str, Any] = {
        "count": result.count,
        "failures": result.failures,
        "detail": result.detail,
        "whole": result.whole,
        "seconds": seconds,
        "date": SystemClock().now().date().isoformat(),
        "commit": commit,
        "machine": f"{machine()}, load {load:.0f} before",
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{figure}.json"
    if more and file.exists():
        content = add(json.loads(file.read_text(encoding="utf-8")), content)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")
    print(text, end="")


def add(before: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """The sum of a stored result and one run more; date and machine are the last run's."""
    commits = dict.fromkeys([*before["commit"].split(" and "), run["commit"]])
    return {
        **run,
        **{name: before[name] + run[name] for name in ("count", "failures", "seconds")},
        "whole": before.get("whole", True) and run["whole"],
        "detail": f"{before['detail']} And {run['count']} more: {run['detail']}",
        "commit": " and ".join(commits),
    }


def product_commit() -> str:
    """The newest commit that changed the product; `+` where files differ from it."""
    newest = _git("log", "-1", "--format=%h", "--", *PRODUCT)
    changed = _git("status", "--porcelain", "--", *PRODUCT)
    return f"{newest}+" if changed else newest


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
