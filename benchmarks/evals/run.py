"""Compares the CPU time and memory of Swapproof's eval worker and of Inspect alone, on the same
items: `python -m benchmarks.evals.run [--samples 500] [--rounds 2]`.

Both run at the same time, so that other processes slow both equally. The benchmark counts each
process's whole CPU time, user and system, because wall time depends on the machine's load.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

import yaml

from benchmarks.print_rows import print_cells
from benchmarks.router.processes import free_port, start, wait_for
from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from harness.frame.people.access import SYSTEM
from harness.proposals import eval_queue
from harness.providers.registry import targets
from harness.providers.target import Target


def taken(
    commands: Mapping[str, Sequence[str]], folder: Path
) -> dict[str, tuple[float, float]]:
    """Runs the commands at the same time. Returns the CPU seconds and the peak of resident
    memory in MiB by name. Raises RuntimeError with the end of the log if a command fails.
    """
    found: dict[str, tuple[float, float]] = {}
    with ExitStack() as stack:
        running = {
            name: start(command, stack, log=folder / f"{name}.log")
            for name, command in commands.items()
        }
        for name, process in running.items():
            _, status, used = os.wait4(process.pid, 0)  # Popen discards the usage
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                words = (folder / f"{name}.log").read_text(encoding="utf-8")[-2000:]
                raise RuntimeError(f"{name} ended with {process.returncode}: {words}")
            found[name] = (
                used.ru_utime + used.ru_stime,
                used.ru_maxrss / 1024,
            )
    return found


BARE = "bare Inspect"
OURS = "swapproof eval-worker"
MOST_CPU = 1.5
MOST_RSS_MIB = 800
CONNECTIONS: Final = 8
HEADS: Final = ("", "cpu_s", "ms_per_sample", "peak_rss_mib", "of_bare")


def write_items(file: Path, count: int) -> None:
    with file.open("w", encoding="utf-8") as out:
        for number in range(count):
            a = number * 37 % 1000
            b = number * 91 % 1000
            item = {
                "id": f"sum-{number}",
                "input": f"What is {a} + {b}?",
                "target": str(a + b),
            }
            out.write(json.dumps(item) + "\n")


def commands(
    folder: Path,
    port: int,
    samples: int,
) -> dict[str, list[str]]:
    """Returns the command lines of both contenders, after queueing Swapproof's run."""
    data = folder / "sums.jsonl"
    write_items(data, samples)
    base_url = f"http://127.0.0.1:{port}/v1"
    for name in ("bare", "ours"):
        (folder / name).mkdir()
    module = [sys.executable, "-m"]
    bare = [
        *module,
        "benchmarks.evals.bare",
        str(data),
        base_url,
        str(folder / "bare"),
    ]
    config, run = queued(
        folder / "ours",
        data,
        base_url,
    )
    worker = [*module, "benchmarks.evals.processes", "worker"]
    ours = [
        *worker,
        str(config),
        run,
        str(folder / "ours"),
    ]
    return {BARE: [*bare, str(CONNECTIONS)], OURS: ours}


def queued(
    folder: Path,
    data: Path,
    base_url: str,
) -> tuple[Path, str]:
    """Queues an eval run in a new database. Returns the configuration file and the run's id."""
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
    document = {
        "home": str(folder / "home"),
        "control": {"eval_connections": CONNECTIONS},
        "providers": {"adder": {"api_base": base_url, "prices": {"adder": price}}},
        "suites": {"sums": {"path": str(data), "scorer": "exact"}},
    }
    config = folder / "swapproof.yaml"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    installation = open_installation(config, create_secret=True)
    upgrade_database(installation.settings)
    ctx = installation.context
    targets.put_provider(ctx, SYSTEM, installation.settings.providers["adder"])
    target = targets.add_target(ctx, SYSTEM, Target("adder", "adder"))
    run = eval_queue.start_run(ctx, SYSTEM, "sums", target.id)
    installation.close()
    return config, run.id


def one_round(
    folder: Path,
    port: int,
    samples: int,
) -> dict[str, tuple[float, float]]:
    folder.mkdir()
    used = taken(commands(folder, port, samples), folder)
    for name, place in ((BARE, "bare"), (OURS, "ours")):
        result = (folder / place / "result").read_text(encoding="utf-8")
        if result != f"{samples} {samples}":  # all items sampled, all answers right
            sys.exit(f"{name}: {result} of {samples} samples; see {folder}")
    return used


def compared(
    rounds: Sequence[Mapping[str, tuple[float, float]]], samples: int
) -> Iterator[tuple[str, float, float, float, float]]:
    for name in (BARE, OURS):
        cpu_s = median(used[name][0] for used in rounds)
        ratio = median(used[name][0] / used[BARE][0] for used in rounds)
        rss_mib = max(used[name][1] for used in rounds)
        yield name, cpu_s, cpu_s / samples * 1000, rss_mib, ratio


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--samples", type=int, default=500)
    options.add_argument(
        "--rounds",
        type=int,
        default=2,
        choices=range(1, 21),
    )
    chosen = options.parse_args()
    rounds = []
    with (
        tempfile.TemporaryDirectory(prefix="swapproof-bench-") as name,
        ExitStack() as stack,
    ):
        folder = Path(name)
        port = free_port()
        module = [sys.executable, "-m", "benchmarks.evals.processes"]
        command = [*module, "provider", str(port)]
        wait_for(port, start(command, stack, log=folder / "provider.log"), 30)
        for number in range(chosen.rounds):
            rounds.append(one_round(folder / f"round-{number}", port, chosen.samples))
            print(
                f"round {number + 1} of {chosen.rounds}: {rounds[-1]}",
                file=sys.stderr,
            )
    rows = [*compared(rounds, chosen.samples)]
    print_cells(
        f"an eval worker beside bare Inspect, {chosen.samples} samples",
        [HEADS, *rows],
    )
    _, _, _, rss_mib, of_bare = rows[1]
    good = of_bare <= MOST_CPU and rss_mib <= MOST_RSS_MIB
    print(
        f"goal: at most {MOST_CPU} x bare Inspect's CPU time and {MOST_RSS_MIB} MiB: "
        f"{'reached' if good else 'MISSED'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
