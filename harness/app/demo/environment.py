"""Prepares what the stories run in: a configuration, and the processes of simulated
providers and Swapgate.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from harness.app.demo.processes import DemoProcesses
from harness.app.demo.scenarios import (
    BETTER,
    INCUMBENT,
    OUTAGE_BACKUP,
    OUTAGE_PRIMARY,
    OUTAGE_ROUTE,
    SUITE,
    WORSE,
    build_scenarios,
)

MODELS = Path(__file__).with_name("models.yaml")
# Simulated answers come in a twentieth of the real time: more traffic in two minutes.
TIME_SCALE = 0.05
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
    """The stories' configuration and processes."""

    swap: bool = False

    @property
    def profiles(self) -> Path:
        return self.folder / "models.yaml"

    def write_config(self) -> None:
        models = yaml.safe_load(MODELS.read_text(encoding="utf-8"))
        prices = {name: model["price"] for name, model in models.items()}
        if self.swap:
            better, worse = (models[name.partition("/")[2]] for name in (BETTER, WORSE))
            better["skill"], worse["skill"] = worse["skill"], better["skill"]
        self.profiles.write_text(yaml.safe_dump(models), encoding="utf-8")
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
            "routes": routes,
        }
        self.config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def _provider(self, process: str, prices: dict[str, object]) -> dict[str, object]:
        return {"kind": "sim", "api_base": f"{self.url(process)}/v1", "prices": prices}

    def start_provider(self, name: str) -> None:
        words = ["sim", "--port", str(self.ports[name]), "--profiles", str(self.profiles)]
        self.start(name, [*words, "--time-scale", str(TIME_SCALE)])
        self.await_answer(name, "/healthz")

    def start_swapgate(self) -> None:
        for part in ("control", "router", "agents", "ui"):
            self.start(part, ["serve", part], {_KEY_VARIABLE: _KEY})
        for part in ("control", "router", "agents"):
            self.await_answer(part, "/readyz")

    def ui_is_up(self) -> None:
        self.await_answer("ui", "/_stcore/health")
