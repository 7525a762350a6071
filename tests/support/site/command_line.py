"""Runs `swapproof` commands in the test's process, on an installation in a folder."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from harness.app.installation import load_settings
from harness.app.store.store import Store
from harness.frame.runtime.clock import SystemClock
from harness.interfaces.cli.program import program
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.control.manual_clock import ManualClock
from tests.support.control.router_rows import let_router_serve
from tests.support.site.signing_keys import CONTROL, ENVIRONMENT

FILE = """\
# yaml-language-server: $schema=swapproof.schema.json
home: .swapproof
control: {port: 1}
providers:
  sim:
    api_base: http://127.0.0.1:9/v1
    prices:
      base: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}
suites:
  colours: {path: colours.jsonl, scorer: exact}
policies:
  default:
    promotion: automatic
    gate: {claim: superior, infra_patience_s: 20}
    canary: &canary
      p0: 0.2
      bake_s: 20
      alpha: 0.05
      warm_up_s: 0
      warm_up_units: 0
      steps:
        - {weight_bps: 100, min_exposures: 3}
        - {weight_bps: 500, min_exposures: 5}
        - {weight_bps: 2500, min_exposures: 10, certify: true}
  approved:
    promotion: approved
    gate: {claim: superior}
    canary: *canary
data_classes:
  personal: [sim]
routes:
  chat: {incumbent: sim/base, suites: [colours]}
"""


@dataclass
class CommandLine:
    """Runs `swapproof` in `folder`. world: the control plane over the same database."""

    folder: Path
    world: SmallInstallation

    def run(self, *words: str, exits: int = 0) -> Result:
        # As in a process of its own: another test may have set up the logs of this one.
        structlog.reset_defaults()
        done = CliRunner().invoke(program, list(words), prog_name="swapproof")
        assert done.exit_code == exits, f"{words}: {done.exit_code}\n{done.output}"
        return done

    def text(self, *words: str, exits: int = 0) -> str:
        return self.run(*words, exits=exits).stdout

    def error(self, *words: str, exits: int) -> str:
        done = self.run(*words, exits=exits)
        assert done.stdout == ""
        return done.stderr

    def acting(self, name: str, role: str) -> tuple[str, str]:
        file = self.folder / f"{name}.key"
        file.write_text(self.json("key", "create", name, "--role", role)["text"])
        return "--key-file", str(file)

    def json(self, *words: str, exits: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", exits=exits).stdout)


@contextmanager
def installed(
    folder: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CommandLine]:
    """An installation in `folder`, from then on the current one, around a database."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SWAPPROOF_SECRET", SECRET.decode())
    monkeypatch.delenv("SWAPPROOF_MANAGEMENT_KEY", raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    (folder / "swapproof.yaml").write_text(FILE, encoding="utf-8")
    (folder / ".swapproof").mkdir()
    if database_url.startswith("sqlite:///"):
        database = Path(database_url.removeprefix("sqlite:///"))
        file = database.rename(folder / ".swapproof/swapproof.db")
        database_url = f"sqlite:///{file}"
    else:
        with (folder / "swapproof.yaml").open("a", encoding="utf-8") as settings:
            settings.write(f"database_url: {database_url}\n")
    # The commands read the machine's clock; a verdict must not have expired by it.
    clock = ManualClock(SystemClock().now())
    store = Store(
        database_url,
        secret=SECRET,
        clock=clock,
        signatures=CONTROL,
    )
    # The commands and the control plane go by the same rules.
    policies = {**load_settings(folder / "swapproof.yaml").policies}
    default = policies.pop("default")
    world = SmallInstallation(
        folder,
        store,
        clock=clock,
        policy=default,
        policies=policies,
    )
    made = CommandLine(folder, world)
    made.run("init")
    let_router_serve(store)
    yield made
    store.close()
