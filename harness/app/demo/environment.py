"""Prepares what the four stories run in: a configuration, and the processes of simulated
providers and Swapgate. It asks the router how it is and who serves.
"""

import json
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

from harness import package_data
from harness.app.demo.child_processes import DemoProcesses
from harness.app.demo.scenarios import (
    INCUMBENT,
    OUTAGE_BACKUP,
    OUTAGE_PRIMARY,
    OUTAGE_ROUTE,
    SUITE,
    YOUR_POLICY,
    YOUR_ROUTE,
    build_scenarios,
)

MODELS = Path(__file__).with_name("models.yaml")
# Simulated answers come in a twentieth of the real time: more traffic in two minutes.
TIME_SCALE = 0.05
SAYS_S = 30.0
# The commands in docs/reference/agents.md name it; here it is as simulated as the others.
DOCUMENTED_MODEL = "gpt-4o-mini"
_KEY_VARIABLE, _KEY = "SWAPGATE_DEMO_KEY", "sk-simulated"
PORTS = {
    "router": 8080,
    "control": 8081,
    "agents": 8085,
    "ui": 8501,
    "sim": 9001,
    "primary": 9101,
    "backup": 9201,
}


@dataclass
class DemoEnvironment(DemoProcesses):
    """The four stories' configuration and processes."""

    swap: bool = False

    def write_config(self) -> None:
        prices = {
            name: model["price"]
            for name, model in yaml.safe_load(MODELS.read_text(encoding="utf-8")).items()
        }
        documented = prices.pop(DOCUMENTED_MODEL)
        suites = [{"suite": SUITE, "role": "primary"}]
        routes: dict[str, object] = {
            story.route: {"incumbent": INCUMBENT, "policy": "demo", "suites": suites}
            for story in build_scenarios(swap=self.swap)
        }
        routes[OUTAGE_ROUTE] = {
            "incumbent": OUTAGE_PRIMARY,
            "fallbacks": [OUTAGE_BACKUP],
            "policy": "demo",
            "suites": suites,
        }
        routes[YOUR_ROUTE] = {"incumbent": INCUMBENT, "policy": YOUR_POLICY, "suites": suites}
        document = {
            "home": str(self.folder),
            "router": {
                "port": self.ports["router"],
                "flush_interval_s": 0.5,
                # A busy machine may hold up the simulated models themselves for seconds.
                "connect_timeout_s": 60,
                "first_byte_timeout_s": 60,
                "first_token_timeout_s": 60,
            },
            "control": {"port": self.ports["control"], "reconcile_interval_s": 0.5},
            "agents": {"port": self.ports["agents"], "open_on_loopback": True},
            "ui": {"port": self.ports["ui"]},
            "providers": {
                "openai": {
                    **self._provider("sim", {DOCUMENTED_MODEL: documented}),
                    "kind": "openai",
                    "api_key_env": _KEY_VARIABLE,
                },
                **{name: self._provider(name, prices) for name in ("sim", "primary", "backup")},
            },
            "policies": {YOUR_POLICY: _policy_with_approval()},
            "routes": routes,
        }
        self.config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def _provider(self, process: str, prices: dict[str, object]) -> dict[str, object]:
        return {"kind": "sim", "api_base": f"{self.url(process)}/v1", "prices": prices}

    def start_provider(self, name: str) -> None:
        options = ["--time-scale", str(TIME_SCALE)]
        if self.swap:
            options += ["--swap", "aurora-2=aurora-lite"]
        self.simulate(name, MODELS, *options)

    def start_swapgate(self) -> None:
        for part in ("control", "router", "agents", "ui"):
            self.start(part, ["serve", part], {_KEY_VARIABLE: _KEY})
        for part in ("control", "router", "agents"):
            self.await_answer(part, "/readyz")

    def ui_is_up(self) -> None:
        self.await_answer("ui", "/_stcore/health")

    def router_says(self, word: str) -> bool:
        """Wait until the router's /readyz has that status or reason; False if it never does."""
        deadline = time.monotonic() + SAYS_S
        while time.monotonic() < deadline:
            with urllib.request.urlopen(f"{self.url('router')}/readyz", timeout=5) as answer:  # noqa: S310
                if word in json.load(answer).values():
                    return True
            time.sleep(0.2)
        return False

    def served_by(self, key: str, route: str) -> str:
        """The target that answers a request of the route now."""
        question = {"model": route, "messages": [{"role": "user", "content": "Who is there?"}]}
        request = urllib.request.Request(  # noqa: S310 - our own router
            f"{self.url('router')}/v1/chat/completions",
            json.dumps(question).encode(),
            {"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return str(answer.headers["x-swapgate-target"])


def _policy_with_approval() -> dict[str, object]:
    """The demo's thresholds, and a person approves, who may be the one who proposed."""
    shipped = package_data.path("config/default.yaml").read_text(encoding="utf-8")
    demo = yaml.safe_load(shipped)["policies"]["demo"]
    return {**demo, "promotion": "approved", "self_approval": True}
