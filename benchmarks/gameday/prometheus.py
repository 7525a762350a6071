"""Prometheus with the rules of `deploy`, whose times are divided so that they fit the run."""

import json
import math
import re
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.gameday.network import Network
from benchmarks.gameday.processes import Processes

DEPLOYED: Final = Path(__file__).parents[2] / "deploy" / "prometheus"
# The rules' longest time, 15 min, is then a twentieth of the run.
LONGEST_S: Final = 900.0
SHARE: Final = 0.05
# Scrapes that come late on a busy machine are no outage.
MOST: Final = 30.0
SCRAPES_S: Final = 2.0
GAP_S: Final = 3 * SCRAPES_S  # without it, it fires again
DURATION: Final = re.compile(r"\[(\d+)m\]")


@dataclass(frozen=True)
class Firing:
    """An alert of the rules that fired. at_s: when it was first seen, Unix time."""

    alert: str
    instance: str
    at_s: float


def factor(seconds: float) -> float:
    """What the rules' times are divided by in a run of so many seconds."""
    return min(MOST, max(1.0, LONGEST_S / (SHARE * seconds)))


def scaled(rules: dict[str, Any], by: float) -> dict[str, Any]:
    """The rules with `for` and the windows of their queries divided; the rest as it is."""
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = f"{max(1, round(60 * int(rule['for'].rstrip('m')) / by))}s"
            # A rate needs a few scrapes.
            rule["expr"] = DURATION.sub(
                lambda window: f"[{max(10, round(60 * int(window[1]) / by))}s]", rule["expr"]
            )
    return rules


def start(network: Network, processes: Processes, folder: Path, seconds: float) -> None:
    from benchmarks.gameday.town import CONTROLS, ROUTERS  # noqa: PLC0415 - it starts us

    rules = yaml.safe_load((DEPLOYED / "rules.yaml").read_text("utf-8"))
    (folder / "rules.yaml").write_text(yaml.safe_dump(scaled(rules, factor(seconds))), "utf-8")
    config = yaml.safe_load((DEPLOYED / "prometheus.yaml").read_text("utf-8"))
    config["global"] = {
        "scrape_interval": f"{SCRAPES_S:.0f}s",
        "evaluation_interval": f"{SCRAPES_S:.0f}s",
    }
    for job in config["scrape_configs"]:
        names, port = (ROUTERS, 8080) if "router" in job["job_name"] else (CONTROLS, 8081)
        targets = [f"{network.address(name)}:{port}" for name in names]
        job["static_configs"] = [{"targets": targets}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), "utf-8")
    flags = (
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
    )
    processes.start("prometheus", "prometheus", *flags)


def firings(network: Network, begun_s: float, ended_s: float) -> list[Firing]:
    """Each time that an alert began to fire, of each instance, in that time."""
    query = urllib.parse.urlencode(
        {
            "query": 'ALERTS{alertstate="firing"}',
            "start": f"{begun_s:.0f}",
            "end": f"{ended_s:.0f}",
            "step": "1",
        }
    )
    url = f"http://{network.address('prometheus')}:9090/api/v1/query_range?{query}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        series = json.load(answer)["data"]["result"]
    return [
        Firing(
            one["metric"]["alertname"],
            one["metric"].get("instance", one["metric"].get("target", "")).partition(":")[0],
            begun,
        )
        for one in series
        for begun in beginnings([float(at_s) for at_s, _ in one["values"]])
    ]


def beginnings(times: Sequence[float]) -> list[float]:
    """Where a new stretch begins, of times in their order."""
    before = (-math.inf, *times)
    return [now for last, now in zip(before, times, strict=False) if now - last > GAP_S]
