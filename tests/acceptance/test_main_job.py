"""The main job, from outside: a better model is proposed, proven, tried on 1 % and promoted."""

import json
import math
from typing import Any, Final

import httpx
import pytest

from tests.acceptance.conftest import LATER_ON_POSTGRESQL, Installing
from tests.acceptance.installation import Document, Installation, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import (
    SHORT,
    await_phase,
    await_up,
    before_simulator,
    history,
    proposal,
    propose,
)
from tests.acceptance.traffic import traffic

# The first step reaches a quarter of the callers, so that few requests are enough.
# The models differ much, so that few items are enough.
QUICK: Final[Document] = {
    **SHORT,
    "gate": {**SHORT["gate"], "n_max": 80},
    "canary": {
        **SHORT["canary"],
        "steps": [
            {"weight_bps": 2500, "min_exposures": 8},
            {
                "weight_bps": 5000,
                "min_exposures": 100,
                "certify": True,
            },
        ],
    },
}


@pytest.mark.spine
@pytest.mark.req("A1", "A7", "F1")
def test_a_proposal_becomes_the_routes_model_by_evals_and_a_short_canary(
    installing: Installing,
) -> None:
    def configure(made: Installation) -> Document:
        sim = Simulator(made)
        sim.profile("sim-base", skill=0.5)
        settings = before_simulator(sim, support={"policy": "quick"})
        return settings | {"policies": {"quick": QUICK}}

    place = installing(configure)
    await_up(place, "router", "control")
    assert place.model_of("support") == "sim/sim-base"
    swap = propose(place, "support", "sim/sim-better")
    await_phase(place, swap, "canary")
    with traffic(place, "support", pause_s=0.02) as asking:
        await_phase(place, swap, "promoted")
        eventually(lambda: place.model_of("support") == "sim/sim-better")

    assert asking.failed == []
    assert history(place, "support") == [
        "baseline",
        "canary",
        "weight",
        "promotion",
    ]
    (verdict,) = place.database.rows("SELECT * FROM verdict WHERE proposal = :id", id=swap)
    assert verdict["outcome"] == "passed"


@pytest.mark.req("A1", "A7", "F1", "F2", "F3", "F5")
@pytest.mark.parametrize("database", LATER_ON_POSTGRESQL, indirect=True)
def test_a_better_model_is_promoted_by_its_scores_and_its_canary(
    installing: Installing, database: str
) -> None:
    place = installing(
        lambda made: before_simulator(Simulator(made), support={}),
        database=database,
    )
    await_up(place, "router", "control")
    assert place.model_of("support") == "sim/sim-base"
    swap = propose(place, "support", "sim/sim-better")
    await_phase(place, swap, "canary")
    with traffic(place, "support") as asking:
        await_phase(place, swap, "promoted")
        eventually(lambda: place.model_of("support") == "sim/sim-better")

    assert asking.failed == []
    assert_canary_came_first(place)
    assert_scores_stand_in_sql(place, swap)
    assert_replayed_to_the_same_bytes(place, swap)
    assert_proven_to_somebody_else(place, swap)

    # A person takes it back, with a reason and without proof.
    body = {"reason": "the customers liked the old one"}
    answer = place.api("POST", "/routes/support/rollback", body)
    assert answer.status_code == httpx.codes.OK, answer.text
    eventually(lambda: place.model_of("support") == "sim/sim-base")
    assert history(place, "support")[-2:] == ["promotion", "restore"]


def assert_canary_came_first(place: Installation) -> None:
    assert history(place, "support") == [
        "baseline",
        "canary",
        "weight",
        "promotion",
    ]
    versions = place.api("GET", "/routes/support/history").json()["items"]
    weights = [v["route"]["canary"]["weight_bps"] for v in versions if v["route"]["canary"]]
    assert weights == [5000, 100]


def assert_scores_stand_in_sql(place: Installation, swap: str) -> None:
    """By docs/reference/database.md, §Tables that you may read."""
    (verdict,) = place.database.rows("SELECT * FROM verdict WHERE proposal = :id", id=swap)
    assert verdict["outcome"] == "passed"
    rows = place.database.rows(
        "SELECT r.id, r.target, r.suite, s.item, s.strict, s.error"
        " FROM eval_run r JOIN sample s ON s.run = r.id"
    )
    assert {(row["suite"], row["error"]) for row in rows} == {("tickets", None)}
    assert {row["target"] for row in rows} == {
        verdict["incumbent"],
        verdict["candidate"],
    }
    scores = {(row["id"], row["item"]): row["strict"] for row in rows}
    inputs = read_json(verdict["inputs"])
    runs = inputs["runs"]["tickets"]
    pairs = inputs["pairs"]["tickets"]
    for item, incumbent, candidate, *_ in pairs:
        assert scores[runs["incumbent"], item] == incumbent
        assert scores[runs["candidate"], item] == candidate
    (suite,) = read_json(verdict["suites"])
    assert suite["n_used"] == len(pairs)
    difference = sum(pair[2] - pair[1] for pair in pairs) / len(pairs)
    assert math.isclose(suite["delta"], difference, abs_tol=1e-9)
    assert difference > 0


def read_json(value: Any) -> Any:
    """A JSON column: PostgreSQL's driver has read it already."""
    return json.loads(value) if isinstance(value, str) else value


def assert_replayed_to_the_same_bytes(place: Installation, swap: str) -> None:
    verdict = proposal(place, swap)["verdict"]
    again = place.json("gate", "replay", verdict)
    assert again["agrees"] is True
    assert again["stored_sha256"] == again["again_sha256"]
    events = place.api("GET", "/audit?limit=100").json()["items"]
    (promoted,) = [event for event in events if event["action"] == "canary.promote"]
    action = place.json("gate", "replay", str(promoted["number"]))
    assert action["agrees"] is True


def assert_proven_to_somebody_else(place: Installation, swap: str) -> None:
    """An auditor has two files: no configuration, no database, no secret."""
    audit = place.folder / "audit"
    audit.mkdir()
    place.cli("proof", "export", swap, "-o", str(audit / "proof.json"))
    (audit / "signing.pub").write_bytes((place.home / "signing.pub").read_bytes())
    verify = ("proof", "verify", "proof.json", "--key", "signing.pub")

    shown = place.cli(*verify, cwd=audit).out
    assert "was registered before the candidate's first answer" in shown
    assert "The verdict is PASSED" in shown
    assert "sim/sim-better became the incumbent" in shown
    assert shown.endswith("The proof holds.\n")

    text = (audit / "proof.json").read_text("utf-8")
    forged = text.replace('"strict": 0.0', '"strict": 1.0', 1)
    assert forged != text
    (audit / "proof.json").write_text(forged, "utf-8")
    refused = place.cli(*verify, cwd=audit, code=1).out
    assert "DOES NOT HOLD: the row sample run_" in refused
