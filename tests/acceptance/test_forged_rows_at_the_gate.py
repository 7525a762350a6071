"""Whoever owns the database writes what decisions are made from: no verdict follows.

Each forgery has a route and a proposal of its own.
"""

import json
import time

import httpx
import pytest

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Document, Installation, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import (
    ENDED,
    await_phase,
    before_simulator,
    phase,
    proposal,
    propose,
)
from tests.acceptance.traffic import ask_all

LOOKS_S = 5.0
ROUTES = {
    "samples": {},
    "runs": {},
    "rules": {},
    "failed": {"policy": "asking"},
    "waiting": {"policy": "asking"},
    "linked": {"policy": "asking"},
    "tried": {"policy": "lasting"},
    "waived": {},
}
LAX = {
    "alpha": 0.5,
    "n_max": 1,
    "claim": "non_inferior",
    "margin": 0.9,
}


@pytest.mark.verify
@pytest.mark.slow
@pytest.mark.req("F1", "F2", "A7")
def test_no_forged_row_leads_to_a_verdict_a_canary_or_a_promotion(
    installing: Installing, database: str
) -> None:
    sims: list[Simulator] = []

    def settings(made: Installation) -> Document:
        sims.append(Simulator(made))
        return before_simulator(sims[0], **ROUTES)

    place = installing(settings, database=database)
    place.serve("router")
    place.serve("control")
    attack = Attack(place, sims[0])
    attack.prepare()
    attack.forge_scores()
    attack.forge_run()
    attack.forge_rules()
    attack.forge_verdict()
    attack.forge_approval()
    attack.forge_person()
    attack.forge_rollout()
    attack.forge_waiver()


class Attack:
    def __init__(self, place: Installation, sim: Simulator) -> None:
        self.place = place
        self.sim = sim
        self.db = place.database

    def prepare(self) -> None:
        """Proposals that have failed, that wait for a person, and whose canary goes on."""
        place = self.place
        self.keys = {
            name: place.json("key", "create", name, "--role", "approver")
            for name in ("ann", "bob")
        }
        said = {"person": "ann", "reason": "the same person"}
        place.api("POST", "/people/bob/declarations", said).raise_for_status()
        ann = self.keys["ann"]["text"]
        self.swaps = {
            "failed": propose(place, "failed", "sim/sim-worse", token=ann),
            "waiting": propose(place, "waiting", "sim/sim-better", token=ann),
            "linked": propose(place, "linked", "sim/sim-better", token=ann),
            "tried": propose(place, "tried", "sim/sim-better", token=ann),
        }
        await_phase(place, self.swaps["failed"], "rejected")
        await_phase(place, self.swaps["waiting"], "awaiting_approval")
        await_phase(place, self.swaps["linked"], "awaiting_approval")
        await_phase(place, self.swaps["tried"], "canary")
        self.targets = {row["model"]: row["id"] for row in self.db.all_rows("target")}

    # Measured while it is forged

    def half_measured(self, route: str) -> str:
        """A proposal of the worse model, some of whose answers are stored."""
        self.sim.fault("sim-worse", "hang", delay_s=2)
        swap = propose(self.place, route, "sim/sim-worse")

        def answers() -> bool:
            assert phase(self.place, swap) in ("proposed", "evaluating")
            found = self.db.rows(
                "SELECT s.item FROM sample s JOIN eval_run r ON r.id = s.run"
                " WHERE r.target = :target AND r.state = 'running'",
                target=self.targets["sim-worse"],
            )
            return bool(found)

        eventually(answers)
        return swap

    def forge_scores(self) -> None:
        swap = self.half_measured("samples")
        changed = self.db.overpower(
            "UPDATE sample SET strict = 1, lenient = 1 WHERE run IN (SELECT id FROM eval_run"
            " WHERE target = :target AND state = 'running')",
            target=self.targets["sim-worse"],
        )
        assert changed >= 1
        self.assert_not_passed("samples", swap)

    def forge_run(self) -> None:
        """The runs of incumbent and candidate change places."""
        swap = self.half_measured("runs")
        base = self.targets["sim-base"]
        worse = self.targets["sim-worse"]
        changed = self.db.overpower(
            "UPDATE eval_run SET target = CASE WHEN target = :base THEN :worse ELSE :base END"
            " WHERE target IN (:base, :worse) AND state IN ('queued', 'running')",
            base=base,
            worse=worse,
        )
        assert changed >= 1
        self.assert_not_passed("runs", swap)

    def forge_rules(self) -> None:
        """The policy and the plan by which the proposal is decided."""
        swap = self.half_measured("rules")
        (row,) = self.db.rows("SELECT policy, plans FROM proposal WHERE id = :id", id=swap)
        forged = {name: with_lax_rules(value) for name, value in row.items()}
        with self.db.changed("proposal", f"id = '{swap}'", **forged):
            self.assert_not_passed("rules", swap)

    def assert_not_passed(self, route: str, swap: str) -> None:
        self.sim.heal()
        until = time.monotonic() + 3 * LOOKS_S
        while time.monotonic() < until and phase(self.place, swap) not in ENDED:
            time.sleep(0.3)
        self.assert_nothing_opened(route)
        passed = self.db.rows(
            "SELECT id FROM verdict WHERE proposal = :id AND outcome = 'passed'",
            id=swap,
        )
        assert passed == []

    # Decided before it is forged

    def forge_verdict(self) -> None:
        """The failed proposal waits for a person, with a verdict that has passed."""
        swap = self.swaps["failed"]
        with (
            self.db.changed("verdict", f"proposal = '{swap}'", outcome="passed"),
            self.db.changed("proposal", f"id = '{swap}'", phase="awaiting_approval"),
        ):
            self.approve_in_vain(swap)
            self.assert_nothing_opened("failed")

    def forge_approval(self) -> None:
        """A person's approval that no person gave."""
        swap = self.swaps["waiting"]
        (row,) = self.db.rows("SELECT * FROM proposal WHERE id = :id", id=swap)
        (bob,) = self.db.rows("SELECT id FROM principal WHERE name = 'bob'")
        approval = {
            "id": "a_forged",
            "proposal": swap,
            "verdict": row["verdict"],
            "kind": "canary",
            "principal": bob["id"],
            "name": "bob",
            "reason": "because I can",
            "at": row["updated_at"],
        }
        assert self.db.insert("approval", approval) == 1
        forged = {"approver": "bob", "approved_verdict": row["verdict"]}
        with self.db.changed("proposal", f"id = '{swap}'", **forged):
            self.assert_nothing_opened("waiting")
        with self.db.changed(
            "proposal",
            f"id = '{swap}'",
            **forged,
            phase="canary",
        ):
            self.assert_nothing_opened("waiting")
        assert self.db.overpower("DELETE FROM approval WHERE id = 'a_forged'") == 1

    def forge_person(self) -> None:
        """The declaration that two principals are one person names somebody else."""
        swap = self.swaps["linked"]
        self.approve_in_vain(swap)
        (ann,) = self.db.rows("SELECT id FROM principal WHERE name = 'ann'")
        (link,) = self.db.rows("SELECT * FROM person_link")
        other = next(
            row["id"]
            for row in self.db.all_rows("principal")
            if row["id"] not in (ann["id"], link["principal"])
        )
        with self.db.changed("person_link", f"id = '{link['id']}'", person=other):
            self.approve_in_vain(swap)
            self.assert_nothing_opened("linked")

    def forge_rollout(self) -> None:
        """A canary without traffic is at its last step, and its rule asks for nothing."""
        swap = self.swaps["tried"]
        (rollout,) = self.db.rows("SELECT * FROM rollout WHERE proposal = :id", id=swap)
        where = f"id = '{rollout['id']}'"
        for forged in (
            {"step": 1, "state": "measuring"},
            {"policy": no_demands(rollout["policy"])},
            {"candidate": self.targets["sim-worse"]},
        ):
            with self.db.changed("rollout", where, **forged):
                self.assert_not_promoted("tried")

    def forge_waiver(self) -> None:
        """A waiver of nobody, and evidence by it, for a fallback."""
        (row,) = self.db.rows(
            "SELECT * FROM evidence WHERE route = 'waived' ORDER BY created_at LIMIT 1"
        )
        worse = self.targets["sim-worse"]
        waiver = {
            "id": "w_forged",
            "route": "waived",
            "target": worse,
            "reason": "because I can",
            "author": "mallory",
            "expires_at": row["created_at"] + 10**15,
        }
        assert self.db.insert("waiver", waiver) == 1
        forged = {
            "id": "e_forged",
            "target": worse,
            "kind": "waiver",
            "waiver_id": "w_forged",
        }
        with self.db.added("evidence", f"id = '{row['id']}'", **forged):
            answer = self.place.api(
                "PUT",
                "/routes/waived/fallbacks",
                {
                    "fallbacks": [{"target": "sim/sim-worse"}],
                    "reason": "a fallback",
                },
            )
            assert answer.status_code >= httpx.codes.BAD_REQUEST, answer.text

    # What follows from it

    def approve_in_vain(self, swap: str) -> None:
        answer = self.place.api(
            "POST",
            f"/proposals/{swap}/approve",
            {"verdict": proposal(self.place, swap).get("verdict")},
            token=self.keys["bob"]["text"],
        )
        assert answer.status_code >= httpx.codes.BAD_REQUEST, answer.text

    def versions(self, route: str) -> list[str]:
        rows = self.db.rows(
            "SELECT kind FROM route_version WHERE route = :route ORDER BY version",
            route=route,
        )
        return [row["kind"] for row in rows]

    def assert_nothing_opened(self, route: str) -> None:
        until = time.monotonic() + LOOKS_S
        while time.monotonic() < until:
            assert self.versions(route) == ["baseline"], route
            time.sleep(0.3)
        answers = ask_all(self.place, route, [f"{route} {number}" for number in range(100)])
        assert {one.target for one in answers.values()} == {"sim/sim-base"}, route

    def assert_not_promoted(self, route: str) -> None:
        until = time.monotonic() + LOOKS_S
        while time.monotonic() < until:
            assert self.versions(route)[:2] == ["baseline", "canary"]
            assert not {"weight", "promotion"} & set(self.versions(route))
            time.sleep(0.3)
        answers = ask_all(self.place, route, [f"{route} {number}" for number in range(100)])
        targets = {one.target for one in answers.values()}
        assert targets <= {"sim/sim-base", "sim/sim-better"}
        assert "sim/sim-base" in targets


def with_lax_rules(value: object) -> object:
    """A JSON value with every rule of the gate replaced by one that anything passes."""
    return rewritten(value, LAX)


def no_demands(value: object) -> object:
    return rewritten(value, {"min_exposures": 0, "certify": False})


def rewritten(value: object, rules: Document) -> object:
    if isinstance(value, str):
        return json.dumps(replaced(json.loads(value), rules))
    return replaced(value, rules)


def replaced(value: object, rules: Document) -> object:
    if isinstance(value, dict):
        return {
            name: rules[name] if name in rules else replaced(one, rules)
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [replaced(one, rules) for one in value]
    return value
