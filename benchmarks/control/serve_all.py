"""What `serve all` costs: how long it takes until its addresses answer, the CPU time of each
process until then, and what an idle installation uses of the processor and of memory. Linux.

    python -m benchmarks.control.serve_all [--starts 3] [--idle 60] [--without-agents]

CPU time is user and system. Memory is the proportional set size: a page that processes share is
counted once in all.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import yaml

from benchmarks.router.processes import free_port, start
from harness.app.database import upgrade_database
from harness.app.installation import load_settings, open_installation
from harness.app.processes import HEALTH, answers_http

PARTS: Final = ("router", "control", "ui", "agents")
SUPERVISOR: Final = "serve all"
PATIENCE_S: Final = 180.0
LOOK_EVERY_S: Final = 0.02
SETTLES_S: Final = 20.0
MIB: Final = 1024 * 1024
COMPILED: Final = {"PYTHONDONTWRITEBYTECODE": ""}
MOST_START_S, MOST_IDLE_PERCENT, MOST_MIB, MOST_AGENTS_MIB = 6.0, 1.5, 350.0, 60.0


@dataclass(frozen=True)
class Usage:
    """Of one process."""

    cpu_s: float
    pss_mib: float


@dataclass(frozen=True)
class Start:
    """Of one `serve all`, on a home with its tables."""

    answered_s: Mapping[str, float]  # by part, since the command
    cpu_s: Mapping[str, float]  # by process, until the last part answered


def configure(folder: Path, *, agents: bool) -> Path:
    """A home with its tables, one provider, one route and one suite; writes the file."""
    data = folder / "sums.jsonl"
    data.write_text('{"input": "What is 1 + 1?", "target": "2"}\n', encoding="utf-8")
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
    address = f"http://127.0.0.1:{free_port()}/v1"
    document: dict[str, object] = {
        "home": str(folder / "home"),
        **{part: {"port": free_port()} for part in PARTS[:-1]},
        "agents": {"port": free_port(), "enabled": agents},
        "providers": {"here": {"api_base": address, "prices": {"model": price}}},
        "suites": {"sums": {"path": str(data), "scorer": "exact"}},
        "routes": {"chat": {"incumbent": "here/model", "suites": ["sums"]}},
    }
    config = folder / "swapgate.yaml"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    installation = open_installation(config, create_secret=True)
    installation.close()
    upgrade_database(installation.settings)
    return config


def usage(supervisor: int) -> dict[str, Usage]:
    """Of the process and all below it, by the words of their commands."""
    root = psutil.Process(supervisor)
    found: dict[str, Usage] = {}
    for process in (root, *root.children(recursive=True)):
        try:
            name = _name(process.name(), process.cmdline())
            times, memory = process.cpu_times(), process.memory_full_info()
        except psutil.Error:  # it has ended
            continue
        before = found.get(name, Usage(0.0, 0.0))
        found[name] = Usage(
            before.cpu_s + times.user + times.system, before.pss_mib + memory.pss / MIB
        )
    return found


def _name(name: str, words: list[str]) -> str:
    """Of a process, by what it calls itself, else by the words of its command."""
    if name.startswith("serve "):
        return name
    if "router-worker" in words:
        return "router-worker"
    if "serve" in words:
        return " ".join(words[words.index("serve") :][:2])
    return " ".join(words[:3])


def started(config: Path, parts: Collection[str], stack: ExitStack) -> tuple[int, Start]:
    """Starts `serve all`; its pid, and what it took until all parts answered."""
    settings = load_settings(config)
    command = [sys.executable, "-m", "swapgate", "--config", str(config), "serve", "all"]
    began = time.monotonic()
    # As installed: modules are compiled once, and not at each start.
    process = start(command, stack, log=config.with_name("serve.log"), env=COMPILED)
    answered: dict[str, float] = {}
    while len(answered) < len(parts):
        for part in parts:
            where = getattr(settings, part)
            if part not in answered and answers_http(where.host, where.port, HEALTH[part]):
                answered[part] = time.monotonic() - began
        if process.poll() is not None or time.monotonic() - began > PATIENCE_S:
            log = config.with_name("serve.log").read_text(encoding="utf-8")
            sys.exit(f"`serve all` did not answer: {log[-2000:]}")
        time.sleep(LOOK_EVERY_S)
    cpu_s = {name: used.cpu_s for name, used in usage(process.pid).items()}
    return process.pid, Start(answered, cpu_s)


def idle(supervisor: int, lasts_s: float) -> tuple[dict[str, float], dict[str, float]]:
    """By process: percent of one core while nothing is asked, and MiB at the end."""
    time.sleep(SETTLES_S)
    before, began = usage(supervisor), time.monotonic()
    time.sleep(lasts_s)
    after, lasted = usage(supervisor), time.monotonic() - began
    cpu = {
        name: 100 * (used.cpu_s - before[name].cpu_s) / lasted
        for name, used in after.items()
        if name in before
    }
    return cpu, {name: used.pss_mib for name, used in after.items()}


def _median_rows(rows: list[Mapping[str, float]]) -> dict[str, float]:
    return {
        name: statistics.median(row[name] for row in rows if name in row) for name in rows[-1]
    }


def _print_table(title: str, rows: Mapping[str, float], unit: str) -> None:
    print(f"{title}")
    for name, value in sorted(rows.items(), key=lambda pair: -pair[1]):
        print(f"  {name:<16}{value:8.2f} {unit}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=3, choices=range(1, 21))
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--without-agents", action="store_true")
    chosen = parser.parse_args()
    parts = PARTS[:-1] if chosen.without_agents else PARTS
    starts = []
    with tempfile.TemporaryDirectory(prefix="swapgate-bench-") as folder:
        config = configure(Path(folder), agents=not chosen.without_agents)
        for number in range(chosen.starts):
            with ExitStack() as stack:
                supervisor, taken = started(config, parts, stack)
                starts.append(taken)
                if number == chosen.starts - 1:
                    cpu, memory = idle(supervisor, chosen.idle)
    answered = _median_rows([taken.answered_s for taken in starts])
    start_cpu = _median_rows([taken.cpu_s for taken in starts])
    _print_table(
        f"from the command to the first answer, median of {len(starts)}", answered, "s"
    )
    _print_table("CPU time until all had answered, median", start_cpu, "s")
    print(f"  {'in all':<16}{sum(start_cpu.values()):8.2f} s")
    _print_table(f"idle for {chosen.idle:.0f} s, of one core", cpu, "%")
    print(f"  {'in all':<16}{sum(cpu.values()):8.2f} %")
    _print_table("memory while idle", memory, "MiB")
    print(f"  {'in all':<16}{sum(memory.values()):8.1f} MiB")
    most_mib = MOST_MIB + (0 if chosen.without_agents else MOST_AGENTS_MIB)
    good = (
        max(answered.values()) <= MOST_START_S
        and sum(cpu.values()) <= MOST_IDLE_PERCENT
        and sum(memory.values()) <= most_mib
    )
    print(
        f"goal: answers within {MOST_START_S:.0f} s, at most {MOST_IDLE_PERCENT} % and "
        f"{most_mib:.0f} MiB: {'reached' if good else 'MISSED'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
