"""`swapproof serve drive flagd` with the official OpenFeature SDK and flagd's provider."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.installation import Installation, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import (
    await_phase,
    await_up,
    before_simulator,
    propose,
)
from tests.integration.test_clients_docs import Client, install
from tests.support.site.documented_commands import shell_blocks

CALLERS = Path(__file__).parents[1] / "support" / "flagd" / "callers.py"
PACKAGES = {
    "openfeature-provider-flagd": "0.6.1",
    "openfeature-hooks-opentelemetry": "0.3.1",
    "opentelemetry-sdk": "1.45.2",
    "opentelemetry-exporter-otlp-proto-http": "1.45.2",
}
FLAG = {
    "state": "ENABLED",
    "variants": {"base": "sim-base", "better": "sim-better"},
    "defaultVariant": "base",
}

pytestmark = [
    pytest.mark.verify,
    pytest.mark.req("F1"),
    pytest.mark.timeout(1800),
]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Installation]:
    place = Installation(Path(sys.executable).with_name("swapproof"), tmp_path / "place", {})
    try:
        yield place
    finally:
        place.close()


def test_flagds_shares_follow_a_rollback_and_then_a_promotion(
    place: Installation, tmp_path: Path
) -> None:
    flags = tmp_path / "flags.json"
    spans = tmp_path / "spans.jsonl"
    flags.write_text(json.dumps({"flags": {"support": FLAG, "other": FLAG}}))

    def flag(name: str = "support") -> Any:
        return json.loads(flags.read_text())["flags"][name]

    def shares() -> Any:
        targeting = flag().get("targeting")
        return targeting and targeting["if"][1]["fractional"][1:]

    sim = Simulator(place)
    place.configure(before_simulator(sim, support={}))
    place.init()
    await_up(place, "control")
    (command,) = shell_blocks("how-to/feature-flags.md")
    paths = {"flags.json": str(flags), "spans.jsonl": str(spans)}
    words = [paths.get(word, word) for word in command.split()[1:]]
    place.start(*words, "--every", "1", "--settle", "1")
    programs = install(
        Client("flagd", "PyPI", tuple(PACKAGES), tuple(PACKAGES.values()), ""),
        tmp_path / "client",
    )
    program = (
        str(programs / "python"),
        str(CALLERS),
        str(flags),
        str(spans),
        f"{sim.url}/v1",
    )
    with subprocess.Popen(program) as asking:  # noqa: S603 - the client has its own venv
        try:
            swap = propose(place, "support", "sim/sim-better")
            eventually(lambda: shares() == [["better", 100], ["base", 9_900]])
            sim.fault("sim-better", "status", status=500)
            await_phase(place, swap, "rolled_back")
            eventually(lambda: not flag()["targeting"] and flag()["defaultVariant"] == "base")
            sim.heal()
            swap = propose(place, "support", "sim/sim-better")
            await_phase(place, swap, "promoted")
            eventually(lambda: flag()["defaultVariant"] == "better" and not flag()["targeting"])
        finally:
            asking.kill()
    assert flag("other") == FLAG
