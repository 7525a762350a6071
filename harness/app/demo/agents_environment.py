"""Prepares what `swapgate demo agents` runs in: three simulated providers, two of which speak
OpenAI's protocol and one Anthropic's, and Swapgate's processes with the agents' among them.
"""

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from harness.app.demo.child_processes import DemoProcesses
from harness.app.installation import Installation
from harness.control.providers import credentials
from harness.control.providers.credentials import CredentialChange
from harness.domain.operations.principals import OPERATOR

MODELS: Final = Path(__file__).with_name("agent_models.yaml")
ROUTE, SPARE_ROUTE = "assistant", "spare"
FIRST, COVER = "north/scout-1", "backup/scout-2"
WANTED: Final = "south/sage-1"
PORTS: Final = {
    "router": 8080, "control": 8081, "agents": 8085, "ui": 8501,
    "north": 9001, "backup": 9101, "south": 9201,
}  # fmt: skip
_KEY_VARIABLE: Final = "SWAPGATE_DEMO_KEY"


@dataclass
class AgentsDemoEnvironment(DemoProcesses):
    """The agents' demo: its configuration and processes."""

    _key: str = field(default_factory=lambda: f"sk-demo-{secrets.token_hex(16)}", repr=False)

    def write_config(self) -> None:
        document = {
            "home": str(self.folder),
            "router": {"port": self.ports["router"], "flush_interval_s": 0.5},
            "control": {"port": self.ports["control"], "reconcile_interval_s": 0.5},
            "agents": {"port": self.ports["agents"], "open_on_loopback": True},
            "ui": {"port": self.ports["ui"]},
            "providers": {
                "north": self._provider("north", "sim", "scout-1"),
                # Nobody knows the price of its scribe-2: the page says so.
                "backup": self._provider("backup", "sim", "scout-2", "scribe-1"),
                "south": self._provider("south", "anthropic", "sage-1", "sage-lite"),
            },
            "routes": {
                ROUTE: {"incumbent": FIRST, "fallbacks": [COVER]},
                SPARE_ROUTE: {"incumbent": COVER},
                # The router loads the translation for it when it starts, and not when the first
                # message to such a model waits.
                "letters": {"incumbent": "south/sage-lite"},
            },
        }
        self.config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def _provider(self, name: str, kind: str, *priced: str) -> dict[str, object]:
        models = yaml.safe_load(MODELS.read_text(encoding="utf-8"))
        prices = {model: models[model]["price"] for model in priced}
        base = self.url(name) if kind == "anthropic" else f"{self.url(name)}/v1"
        return {"kind": kind, "api_base": base, "prices": prices}

    def start_providers(self, installation: Installation) -> None:
        """The last of them asks for a key, which is stored as a person's would be."""
        for name in ("north", "backup"):
            self.simulate(name, MODELS, "--time-scale", "0.05")
        environment = {_KEY_VARIABLE: self._key}
        options = ("--time-scale", "0.05", "--key-env", _KEY_VARIABLE)
        self.simulate("south", MODELS, *options, environment=environment)
        change = CredentialChange(value=self._key)
        credentials.put_credential(installation.context, OPERATOR, "south", change)

    def start_swapgate(self) -> None:
        for part in ("control", "router", "agents", "ui"):
            self.start(part, ["serve", part])
        for part in ("control", "router", "agents"):
            self.await_answer(part, "/readyz")
        self.await_answer("ui", "/_stcore/health")
