"""Where a process's CPU time goes: a look at its stack each 5 ms of CPU time, by part.

A look belongs to the part of the innermost frame that has one; what the standard library does
belongs to whom it was done for.
"""

import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

EVERY_S: Final = 0.005
OTHER: Final = "everything else"
IMPORTS: Final = "importing modules"
# Part, and what stands in the path of its files. The first that fits wins.
PARTS: Final[Sequence[tuple[str, Sequence[str]]]] = (
    (IMPORTS, ("importlib._bootstrap",)),
    ("Inspect: buffer of its live view", ("inspect_ai/log/_recorders/buffer/",)),
    (
        "Inspect: log, transcript and events",
        (
            *("inspect_ai/log/", "inspect_ai/event", "inspect_ai/_eval/task/log.py"),
            *("inspect_ai/_util/json.py", "inspect_ai/_util/zipfile.py"),
        ),
    ),
    ("Inspect: deep copies of state", ("/copy.py",)),
    (
        "Inspect: what a sample runs through",
        ("inspect_ai/_eval/", "inspect_ai/solver/", "inspect_ai/util/", "inspect_ai/scorer/"),
    ),
    ("Inspect: its model layer", ("inspect_ai/model/",)),
    ("Inspect: hooks, registry, the rest", ("inspect_ai/",)),
    (
        "calling the provider",
        ("aiohttp/", "evals/runner/provider_client.py", "evals/runner/chat_completions.py"),
    ),
    ("storing samples", ("harness/", "sqlalchemy/")),
    ("our runner, model and scorers", ("evals/",)),
    ("event loop", ("asyncio/", "anyio/")),
)


def part_of(paths: Sequence[str]) -> str:
    """paths: of a stack's files, the innermost first."""
    for path in paths:
        for part, marks in PARTS:
            if any(mark in path for mark in marks):
                return part
    return OTHER


def profiled(work: Callable[[], None], file: Path) -> None:
    """Do the work, and write how often each part was seen."""
    seen: Counter[str] = Counter()
    deepest: Counter[str] = Counter()

    def count_frame(_number: int, frame: FrameType | None) -> None:
        paths = []
        if frame is not None:
            code = frame.f_code
            deepest[f"{code.co_filename.rpartition('site-packages/')[2]}:{code.co_name}"] += 1
        while frame is not None:
            paths.append(frame.f_code.co_filename)
            frame = frame.f_back
        seen[part_of(paths)] += 1

    signal.signal(signal.SIGPROF, count_frame)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    try:
        work()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        found = {"parts": seen, "functions": dict(deepest.most_common(60))}
        file.write_text(json.dumps(found), encoding="utf-8")


def shares(file: Path) -> Mapping[str, float]:
    """Each part's share of 1, the largest first. Imports are a fixed price, and left out."""
    seen = json.loads(file.read_text(encoding="utf-8"))["parts"]
    seen.pop(IMPORTS, None)
    every = sum(seen.values()) or 1
    return {part: n / every for part, n in sorted(seen.items(), key=lambda pair: -pair[1])}


def import_s(file: Path) -> float:
    """CPU seconds for importing modules."""
    seen = json.loads(file.read_text(encoding="utf-8"))["parts"]
    return float(seen.get(IMPORTS, 0) * EVERY_S)


if __name__ == "__main__":
    sys.exit(__doc__)
