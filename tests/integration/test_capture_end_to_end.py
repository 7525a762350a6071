import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from evals.sim import server as sim
from harness.operations.records import captured
from tests.support.providers import simulator_thread
from tests.support.router.router_process import Routed, eventually, routed

pytestmark = [
    pytest.mark.req("F9", "D8", "G4"),
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

EMAIL = "kim.lee{}@example.org"
KEY = "sk-proj-Zk3Vq9Lw2Xn7Rt5Yb8Hd4{:04}"
TICKETS = Path(__file__).resolve().parents[2] / "datasets/tickets.jsonl"
REQUESTS = 200
PORTION = 50  # the router drops captures while a hundred wait
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "mail",
        "parameters": {
            "type": "object",
            "properties": {"to": {"type": "string"}},
        },
    },
}


def tickets() -> list[dict[str, Any]]:
    lines = TICKETS.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines][:REQUESTS]


def send_all(world: Routed) -> None:
    """A secret in every request; every third is streamed, every fifth has tools."""
    with world.client() as client:
        for number, ticket in enumerate(tickets()):
            if number % PORTION == 0:
                eventually(partial(is_stored, world, number))
            secret = f"From {EMAIL.format(number)}, with {KEY.format(number)}."
            messages: Any = [
                {"role": "system", "content": secret},
                {"role": "user", "content": ticket["input"]},
            ]
            given: dict[str, Any] = {"tools": [WEATHER]} if number % 5 == 0 else {}
            made = client.chat.completions.create(
                model="triage",
                messages=messages,
                user=f"user-{number}",
                stream=number % 3 == 0,
                **given,
            )
            if number % 3 == 0:
                assert list(made)


def label(file: Path) -> None:
    right = {ticket["input"]: ticket["target"] for ticket in tickets()}
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        line["label"] = right[line["messages"][-1]["content"]]
        line |= {
            "label_author": "ann",
            "labelled_at": "2026-11-20T12:00:00+00:00",
        }
        lines.append(json.dumps(line))
    file.write_text("\n".join(lines), encoding="utf-8")


def is_stored(world: Routed, count: int) -> bool:
    engine = sa.create_engine(world.installation.settings.database_url)
    with engine.connect() as db:
        found = db.execute(sa.select(sa.func.count()).select_from(captured)).scalar_one()
    engine.dispose()
    return int(found) == count


@pytest.mark.verify
def test_captured_traffic_becomes_a_suite_that_the_gate_decides_by(tmp_path: Path) -> None:
    with (
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as provider,
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as elsewhere,
        routed(
            tmp_path,
            provider,
            providers={
                "sim": {"kind": "sim", "api_base": f"{provider}/v1"},
                "other": {"kind": "sim", "api_base": f"{elsewhere}/v1"},
            },
            data_classes={"personal": ["sim"]},
            suites={},
            routes={
                "triage": {
                    "incumbent": "sim/sim-base",
                    "suites": ["tickets"],
                    "capture": "100%",
                    "capture_per_day": 1000,
                    "data_class": "personal",
                }
            },
        ) as world,
    ):
        world.start("--workers", "2")
        send_all(world)
        eventually(partial(is_stored, world, REQUESTS))
        assert world.place.terminate("router") == 0

        everything = b"".join(
            path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
        )
        assert b"kim.lee" not in everything
        assert b"sk-proj-" not in everything
        assert b"[EMAIL_1], with [KEY_1]." in everything

        labelled = tmp_path / "labelled.jsonl"
        run = world.place.run
        wrote = run("capture", "export", str(labelled), "--route", "triage", "--json")
        assert json.loads(wrote.stdout)["written"] >= REQUESTS * 0.95
        streamed = [json.loads(line) for line in labelled.read_text().splitlines()]
        assert all(
            capture["answer"]["content"] for capture in streamed if "tools" not in capture
        )
        label(labelled)
        # The label scorer's labels; the answers have no tools to call.
        imported = run(
            "suite",
            "import",
            str(labelled),
            "--suite",
            "production",
            "--scorer",
            "label",
            "--max-output-tokens",
            "64",
            "--json",
        )
        assert json.loads(imported.stdout)["configured"] is True
        assert 'routes = ["triage"]' in (tmp_path / "suites/manifest.toml").read_text()

        refused = run(
            "gate",
            "run",
            "--suite",
            "production",
            "--incumbent",
            "sim/sim-base",
            "--candidate",
            "other/sim-better",
            expect=7,
        )
        assert "may not see it" in refused.stderr
        passed = run(
            "gate",
            "run",
            "--suite",
            "production",
            "--incumbent",
            "sim/sim-base",
            "--candidate",
            "sim/sim-better",
        )
        assert passed.stdout.startswith("PASSED: ")
        gone = run("capture", "purge", "--user", "user-7", "--json")
        assert json.loads(gone.stdout) == {"deleted": 1}
