"""`swapgate drift` as a person reads it, from the baseline to what they accept."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.suites.items import Item
from harness.control.evals import drift_monitor as monitor
from harness.control.evals import worker_supervision
from harness.domain.drift import DriftPolicy
from harness.domain.evals.pins import ServedModel
from harness.domain.routing.target import Target
from tests.support.control.control_plane import SKILL
from tests.support.site.command_line import FILE, CommandLine, installed

pytestmark = pytest.mark.req("F7")
SECTION = "scorer: exact, drift: {items: 60}}"


@pytest.fixture
def cli(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLine]:
    with installed(tmp_path, sqlite_url, monkeypatch) as made:
        watching = FILE.replace("scorer: exact}", SECTION)
        assert SECTION in watching
        (tmp_path / "swapgate.yaml").write_text(watching, encoding="utf-8")
        made.world.drift["colours"] = DriftPolicy(items=60)
        yield made


def measured(cli: CommandLine) -> None:
    for step in (monitor.run_once, worker_supervision.run_once, monitor.run_once):
        step(cli.world.context())
    cli.world.clock.advance(1)


def test_a_person_sees_what_changed_and_accepts_it(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = cli.run("drift", "run", "chat")
    assert started.stdout.startswith("run_")
    assert "`swapgate drift status chat` has the result" in started.stderr
    measured(cli)
    assert "watching  not yet" in cli.text("drift", "status")
    cli.run("drift", "run", "chat")
    measured(cli)
    assert "compared  once" in cli.text("drift", "status", "chat")

    def behind(target: Target, _item: Item) -> ServedModel:
        return ServedModel(f"{target.model}-2027")

    monkeypatch.setitem(SKILL, "base", SKILL["worse"])
    cli.world.served = behind
    cli.run("drift", "run", "chat")
    measured(cli)

    shown = cli.run("drift", "status", "chat")
    assert "state          DRIFTED" in shown.stdout
    assert "compared       2 times" in shown.stdout
    assert "−41.7 points" in shown.stdout
    assert "served         base-2027\nserved before  base\n" in shown.stdout
    assert "`swapgate drift accept chat --reason …`" in shown.stderr
    refused = cli.run("drift", "run", "chat", exits=6).stderr
    assert "suite colours has found drift on route chat" in refused
    told = cli.text("alert", "list")
    assert "the provider of sim/base serves another model: base-2027" in told

    cli.run("drift", "accept", "chat", "--reason", "the provider told us")
    assert "measuring the baseline" in cli.text("drift", "status")
