import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.grafana import dashboard
from evals.sim import server as sim
from harness.frame.metrics import (
    CONTROL_METRICS,
    PROCESS_COUNTERS,
    ROUTER_METRICS,
)
from harness.frame.people.access import SYSTEM, Role
from harness.operations import keys
from router.recording.metrics import counter_names
from tests.support.providers import simulator_thread
from tests.support.router.router_process import (
    ROUTE,
    Routed,
    eventually,
    routed,
    start_canary,
)
from tests.support.site.processes import free_port

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
METRICS = {
    **ROUTER_METRICS,
    **PROCESS_COUNTERS,
    **CONTROL_METRICS,
}
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}
# By the name that Prometheus stores.
SERIES = {
    f"{name}{suffix}": set(spec.labels)
    for name, spec in METRICS.items()
    for suffix in SUFFIXES[spec.kind]
}
# Labels that Prometheus and the router's workers add.
ADDED_LABELS = {"instance", "job", "worker", "le"}
GROUPING = re.compile(r"\bby \(([^)]*)\)")
INCREASE = re.compile(r"increase\((\w+)\[")
SELECTOR = re.compile(r"\{(\w+)=")


def rules() -> dict[str, str]:
    [group] = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text("utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def panels() -> dict[str, str]:
    shipped = json.loads(dashboard.FILE.read_text("utf-8"))
    return {
        panel["title"]: target["expr"]
        for panel in shipped["panels"]
        for target in panel.get("targets", ())
    }


def test_the_dashboards_file_is_what_its_table_writes() -> None:
    assert dashboard.FILE.read_text("utf-8") == dashboard.dump_dashboard(), (
        "write it anew: python -m deploy.grafana.dashboard"
    )


@pytest.mark.parametrize("queries", [rules(), panels()], ids=["rules", "panels"])
def test_every_query_names_only_metrics_and_labels_that_exist(queries: dict[str, str]) -> None:
    assert queries
    for title, query in queries.items():
        named = set(re.findall(r"\bswapproof_\w+", query))
        assert named or query.startswith("up{"), title
        assert named <= SERIES.keys(), title
        labels = {
            label.strip() for group in GROUPING.findall(query) for label in group.split(",")
        } | set(SELECTOR.findall(query))
        assert labels <= ADDED_LABELS.union(*(SERIES[name] for name in named)), title


def test_the_first_time_fires_a_rule_that_asks_for_an_increase() -> None:
    reported = {f"swapproof_{name}_total" for name in counter_names({})}
    rising = {name for query in rules().values() for name in INCREASE.findall(query)}

    assert len(rising) > 3
    assert rising <= reported


def test_each_rule_has_a_case_where_it_fires_and_one_where_it_stays_quiet() -> None:
    cases = yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text("utf-8"))["tests"]
    expected = [
        (check["alertname"], bool(check["exp_alerts"]))
        for case in cases
        for check in case["alert_rule_test"]
    ]

    assert sorted(expected) == sorted((name, fires) for name in rules() for fires in (0, 1))


def test_promtool_finds_that_the_rules_fire_when_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here (Debian: prometheus); names alone were checked")
    done = subprocess.run(  # noqa: S603 - Prometheus' own tool
        [promtool, "test", "rules", "rules_test.yaml"],
        cwd=PROMETHEUS,
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here (Debian: prometheus); names alone were checked")
    recorded = [
        {"record": f"panel_{number}", "expr": query}
        for number, query in enumerate(panels().values())
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    done = subprocess.run(  # noqa: S603 - Prometheus' own tool
        [promtool, "check", "rules", file],
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """A real one, with the files of deploy/ but for addresses and pace."""

    def __init__(self, world: Routed) -> None:
        self._folder = world.place.folder
        self._place = world.place
        self.url = f"http://127.0.0.1:{free_port()}"
        secret = world.installation.secret
        context = world.installation.context
        _, token = keys.create_key(
            context,
            SYSTEM,
            "prometheus",
            secret=secret,
            role=Role.VIEWER,
            service=True,
        )
        (self._folder / "router.token").write_text(world.key)
        (self._folder / "control.token").write_text(token)
        shutil.copy(PROMETHEUS / "rules.yaml", self._folder)
        text = (PROMETHEUS / "prometheus.yaml").read_text("utf-8").replace("15s", "1s")
        for port, name in ((8080, "router"), (8081, "control")):
            text = text.replace(f":{port}", f":{self._place.ports[name]}")
        (self._folder / "prometheus.yaml").write_text(text)

    def start(self, program: str) -> None:
        words = (
            f"--config.file={self._folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self._folder / 'tsdb'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        )
        with (self._folder / "prometheus.log").open("wb") as log:
            self._place.children["prometheus"] = subprocess.Popen(  # noqa: S603 - of this machine
                [program, *words], stdout=log, stderr=log
            )
        eventually(self.is_ready)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def ask(self, path: str, **query: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=query, timeout=60).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> list[float]:
        """The numbers that it answers with; NaN is none."""
        found = [float(one["value"][1]) for one in self.ask("query", query=query)["result"]]
        return [value for value in found if math.isfinite(value)]


@contextmanager
def scraped(folder: Path) -> Iterator[tuple[Prometheus, Callable[[], None]]]:
    """An installation with traffic; the function sends a request of each kind."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not here (Debian: prometheus); names alone were checked")
    price = {"input_usd_per_mtok": 1000.0, "output_usd_per_mtok": 1000.0}
    with (
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as provider,
        routed(
            folder,
            provider,
            router={"flush_interval_s": 0.2, "health_check_interval_s": 0.2},
            providers={
                "sim": {
                    "kind": "sim",
                    "api_base": f"{provider}/v1",
                    "prices": {"sim-base": price},
                }
            },
            routes={
                ROUTE: {"incumbent": "sim/sim-base", "suites": ["colours"]},
                "fails-over": {
                    "incumbent": "sim/sim-worse",
                    "fallbacks": ["sim/sim-base"],
                },
                "fails": {"incumbent": "sim/sim-worse"},
            },
        ) as world,
    ):
        fault = {"kind": "status", "status": 503}
        httpx.put(f"{provider}/sim/faults/sim-worse", json=fault).raise_for_status()
        start_canary(world, folder)
        world.start()
        world.place.start("control", "serve", "control", wait_for="/readyz")
        prometheus = Prometheus(world)
        prometheus.start(program)

        def send() -> None:
            for route, streams in (
                (ROUTE, False),
                (ROUTE, True),
                ("fails-over", False),
            ):
                question = [{"role": "user", "content": "Colour number 3?"}]
                body = {
                    "model": route,
                    "messages": question,
                    "stream": streams,
                }
                answer = client.post("/chat/completions", json=body)
                assert answer.status_code == httpx.codes.OK, answer.text
            body = {"model": "fails", "messages": question}
            assert client.post("/chat/completions", json=body).is_server_error

        bearer = {"authorization": f"Bearer {world.key}"}
        with httpx.Client(base_url=f"{world.url}/v1", headers=bearer, timeout=60) as client:
            yield prometheus, send


@pytest.mark.verify
@pytest.mark.req("G6")
@pytest.mark.timeout(600)
def test_a_real_prometheus_answers_every_panel_and_every_rule(tmp_path: Path) -> None:
    with scraped(tmp_path) as (prometheus, send):
        missing = panels()

        def answered() -> bool:
            send()
            for title in [*missing]:
                if prometheus.values(missing[title]):
                    del missing[title]
            return not missing

        try:
            eventually(answered)
        except AssertionError:
            raise AssertionError(f"no data: {missing}") from None
        assert prometheus.values('up{job=~"swapproof-.*"}') == [1.0, 1.0]
        [group] = prometheus.ask("rules")["groups"]
        assert {rule["name"]: rule["health"] for rule in group["rules"]} == dict.fromkeys(
            rules(), "ok"
        )
