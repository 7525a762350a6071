"""Prepares what the demo runs in: a folder, free ports, a configuration, and the processes of
simulated providers and Swapgate. It waits until they answer, kills one on request, asks the
router who serves, and ends all of them.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from harness.app.demo.scenarios import (
    INCUMBENT,
    OUTAGE_BACKUP,
    OUTAGE_PRIMARY,
    OUTAGE_ROUTE,
    SUITE,
    build_scenarios,
)
from harness.domain.errors import SwapgateError
from harness.runtime.processes.tcp_ports import free_port

HOST = "127.0.0.1"
MODELS = Path(__file__).with_name("models.yaml")
# Simulated answers come in a twentieth of the real time: more traffic in two minutes.
TIME_SCALE = 0.05
START_S = 120.0
SAYS_S = 30.0
PORTS = {
    "router": 8080,
    "control": 8081,
    "ui": 8501,
    "sim": 9001,
    "primary": 9101,
    "backup": 9201,
}


@dataclass
class DemoEnvironment:
    """The demo's folder, ports and processes."""

    folder: Path  # holds the database, the logs and swapgate.yaml
    swap: bool
    ports: dict[str, int] = field(default_factory=dict)  # by process
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "swapgate.yaml"

    def url(self, name: str) -> str:
        return f"http://{HOST}:{self.ports[name]}"

    def choose_ports(self) -> list[str]:
        """Free ports; returns a note for each that had to move."""
        notes = []
        for name, wanted in PORTS.items():
            spoken_for = {*PORTS.values(), *self.ports.values()} - {wanted}
            self.ports[name] = free_port(HOST, wanted, spoken_for=spoken_for)
            if self.ports[name] != wanted:
                notes.append(f"port {wanted} is taken: {name} uses {self.ports[name]}")
        return notes

    def write_config(self) -> None:
        prices = {
            name: model["price"]
            for name, model in yaml.safe_load(MODELS.read_text(encoding="utf-8")).items()
        }
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
            "router": {"port": self.ports["router"], "flush_interval_s": 0.5},
            "control": {"port": self.ports["control"], "reconcile_interval_s": 0.5},
            "ui": {"port": self.ports["ui"]},
            "providers": {
                name: {"kind": "sim", "api_base": f"{self.url(name)}/v1", "prices": prices}
                for name in ("sim", "primary", "backup")
            },
            "routes": routes,
        }
        self.config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def start_provider(self, name: str) -> None:
        words = ["sim", "--port", str(self.ports[name]), "--profiles", str(MODELS)]
        words += ["--time-scale", str(TIME_SCALE)]
        if self.swap:
            words += ["--swap", "aurora-2=aurora-lite"]
        self._start(name, words)
        self._answers(name, "/healthz")

    def start_swapgate(self) -> None:
        for part in ("control", "router", "ui"):
            self._start(part, ["serve", part])
        self._answers("control", "/readyz")
        self._answers("router", "/readyz")

    def ui_is_up(self) -> None:
        self._answers("ui", "/_stcore/health")

    def _start(self, name: str, words: list[str]) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.children[name] = subprocess.Popen(  # noqa: S603 - our own command
                [
                    sys.executable,
                    "-m",
                    "swapgate",
                    "--config",
                    str(self.config),
                    *words,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    def _answers(self, name: str, path: str) -> None:
        """Wait until the process serves. Raises SwapgateError with the end of its log."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.children[name].poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.url(name) + path, timeout=2):  # noqa: S310
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        log = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        raise SwapgateError(f"{name} did not start:\n{log[-2000:]}")

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

    def kill(self, name: str) -> int:
        """Kills a process by SIGKILL, as when a machine dies. Returns its pid."""
        child = self.children[name]
        child.send_signal(signal.SIGKILL)
        child.wait()
        return child.pid

    def close(self) -> None:
        """End every process that was started here; leave none behind."""
        for child in self.children.values():
            if child.poll() is None:
                child.terminate()
        for child in self.children.values():
            try:
                child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
