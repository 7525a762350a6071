"""Whoever owns the database drops its triggers and writes rows: routers serve none of it.

Each forgery is undone before the next one, so that none hides another.
"""

import time
from contextlib import ExitStack

import httpx
import pytest

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Document, Installation, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import await_phase, before_simulator, propose

# Routers look for changes at least every two seconds.
LOOKS_S = 4.0
NEWEST = (
    "route = '{0}' AND version = (SELECT max(version) FROM route_version WHERE route = '{0}')"
)


@pytest.mark.req("F1", "A4", "A7", "B11")
@pytest.mark.verify
@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_router_serves_nothing_that_the_owner_of_the_database_wrote(
    installing: Installing, database: str
) -> None:
    evil: list[Simulator] = []

    def settings(made: Installation) -> Document:
        sim = Simulator(made)
        evil.append(Simulator(made, name="evil"))
        said = before_simulator(
            sim,
            support={"fallbacks": ["sim/sim-backup"]},
            tried={"policy": "lasting"},
            failed={},
        )
        said["router"]["breaker"] = {"failures": 1_000_000}
        return said

    place = installing(settings, database=database)
    place.serve("router")
    place.serve("control")
    attack = Attack(place, evil[0])
    attack.prepare()
    for name in [name for name in dir(attack) if name.startswith("forge_")]:
        with ExitStack() as undo:
            getattr(attack, name)(undo)
            attack.assert_nothing_moves(name)
    attack.assert_keys_open_no_more_than_before()
    eventually(lambda: place.router("GET", "/readyz").json()["status"] == "ok")


class Attack:
    """What the owner of the database does, one thing after the other."""

    def __init__(self, place: Installation, evil: Simulator) -> None:
        self.place = place
        self.evil = evil
        self.db = place.database

    def prepare(self) -> None:
        """A canary on `tried`, a failed proposal on `failed`, a lifted switch, some keys."""
        place = self.place
        swaps = {
            "tried": propose(place, "tried", "sim/sim-better"),
            "failed": propose(place, "failed", "sim/sim-worse"),
        }
        await_phase(place, swaps["failed"], "rejected")
        await_phase(place, swaps["tried"], "canary")
        self.failed = swaps["failed"]
        self.targets = {row["model"]: row["id"] for row in self.db.all_rows("target")}
        thrown = place.api(
            "POST",
            "/switches",
            {"force": "target:sim/sim-backup", "reason": "a test"},
        )
        self.switch = thrown.json()["id"]
        eventually(lambda: place.model_of("support") == "sim/sim-backup")
        place.api(
            "POST", f"/switches/{self.switch}/lift", {"reason": "over"}
        ).raise_for_status()
        eventually(lambda: place.model_of("support") == "sim/sim-base")
        self.restricted = self.new_key("restricted", routes=["tried"])
        self.revoked = self.new_key("revoked")
        eventually(lambda: self.asked_with(self.revoked) == httpx.codes.OK)
        place.api("DELETE", f"/keys/{self.revoked['key']['id']}").raise_for_status()
        eventually(lambda: self.asked_with(self.revoked) == httpx.codes.UNAUTHORIZED)
        self.viewer = self.new_key("viewer", role="viewer")
        self.refused = self.asked_with(self.restricted)
        assert self.refused in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND)

    def new_key(self, name: str, **said: object) -> Document:
        answer = self.place.api("POST", "/keys", {"name": name, **said})
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return dict(answer.json())

    def asked_with(self, key: Document) -> int:
        return self.place.chat("support", key=key["text"]).status_code

    # What is forged

    def forge_the_incumbent(self, undo: ExitStack) -> None:
        undo.enter_context(
            self.db.changed(
                "route_version",
                NEWEST.format("support"),
                incumbent=self.targets["sim-worse"],
            )
        )

    def forge_the_canary_s_share(self, undo: ExitStack) -> None:
        undo.enter_context(
            self.db.changed("route_version", NEWEST.format("tried"), weight_bps=9_999)
        )

    def forge_a_promotion_with_all_its_proof(self, undo: ExitStack) -> None:
        """What honest work leaves: verdict, evidence, rollout, approval, canary, promotion."""
        db = self.db
        worse = self.targets["sim-worse"]
        verdict = f"proposal = '{self.failed}'"
        (newest,) = db.rows(f"SELECT * FROM route_version WHERE {NEWEST.format('failed')}")  # noqa: S608
        (canary,) = db.rows(f"SELECT * FROM route_version WHERE {NEWEST.format('tried')}")  # noqa: S608
        undo.enter_context(
            db.added(
                "verdict",
                verdict,
                id="v_forged",
                outcome="passed",
            )
        )
        proof = {"verdict_id": "v_forged", "verdict_outcome": "passed"}
        undo.enter_context(
            db.added(
                "evidence",
                f"id = '{newest['incumbent_evidence']}'",
                id="e_forged",
                target=worse,
                kind="verdict",
                verdict_incumbent=newest["incumbent"],
                **proof,
            )
        )
        undo.enter_context(
            db.added(
                "rollout",
                f"id = '{canary['rollout']}'",
                id="ro_forged",
                proposal=self.failed,
                route="failed",
                candidate=worse,
                verdict="v_forged",
            )
        )
        following = {
            "prev_incumbent": newest["incumbent"],
            "verdict_candidate": worse,
            **proof,
        }
        undo.enter_context(
            db.added(
                "route_version",
                NEWEST.format("failed"),
                version=newest["version"] + 1,
                revision=1_000,
                prev_version=newest["version"],
                kind="canary",
                canary=worse,
                canary_evidence="e_forged",
                weight_bps=10_000 - 1,
                salt=canary["salt"],
                unit_rule=canary["unit_rule"],
                rollout="ro_forged",
                **following,
            )
        )
        undo.enter_context(
            db.added(
                "route_version",
                f"route = 'failed' AND version = {newest['version']}",
                version=newest["version"] + 2,
                revision=1_001,
                prev_version=newest["version"] + 1,
                kind="promotion",
                incumbent=worse,
                incumbent_evidence="e_forged",
                **following,
            )
        )

    def forge_an_older_head(self, undo: ExitStack) -> None:
        undo.enter_context(self.db.removed("route_version", NEWEST.format("tried")))

    def forge_the_target(self, undo: ExitStack) -> None:
        undo.enter_context(
            self.db.changed(
                "target",
                f"id = '{self.targets['sim-base']}'",
                model="sim-worse",
            )
        )

    def forge_the_provider_s_address(self, undo: ExitStack) -> None:
        undo.enter_context(
            self.db.changed("provider", "name = 'sim'", api_base=f"{self.evil.url}/v1")
        )

    def forge_the_provider_s_headers(self, undo: ExitStack) -> None:
        body = '{"model": "sim-worse"}'
        undo.enter_context(self.db.changed("provider", "name = 'sim'", extra_body=body))

    def forge_a_kill_switch_that_was_lifted(self, undo: ExitStack) -> None:
        undo.enter_context(
            self.db.changed(
                "switch",
                f"id = '{self.switch}'",
                lifted_at=None,
                lifted_by=None,
            )
        )

    def forge_a_kill_switch(self, undo: ExitStack) -> None:
        undo.enter_context(
            self.db.added(
                "switch",
                f"id = '{self.switch}'",
                id="sw_forged",
                lifted_at=None,
                lifted_by=None,
            )
        )

    def forge_the_routes_of_a_key(self, undo: ExitStack) -> None:
        where = f"id = '{self.restricted['key']['id']}'"
        undo.enter_context(self.db.changed("api_key", where, routes="[]"))

    def forge_a_key_that_was_revoked(self, undo: ExitStack) -> None:
        where = f"id = '{self.revoked['key']['id']}'"
        undo.enter_context(self.db.changed("api_key", where, revoked_at=None))

    def forge_a_key(self, undo: ExitStack) -> None:
        where = f"id = '{self.revoked['key']['id']}'"
        (row,) = self.db.rows(f"SELECT * FROM api_key WHERE {where}")  # noqa: S608
        undo.enter_context(self.db.changed("api_key", where, hash="0" * 64))
        undo.enter_context(
            self.db.added(
                "api_key",
                where,
                id="key_forged",
                hash=row["hash"],
                revoked_at=None,
                name="new",
            )
        )

    def forge_the_role_of_a_key(self, undo: ExitStack) -> None:
        where = f"id = '{self.viewer['key']['id']}'"
        undo.enter_context(self.db.changed("api_key", where, role=4))

    # What follows from it

    def assert_nothing_moves(self, what: str) -> None:
        until = time.monotonic() + LOOKS_S
        number = 0
        while time.monotonic() < until:
            number += 1
            assert self.place.model_of("support") == "sim/sim-base", what
            assert self.place.model_of("failed") == "sim/sim-base", what
            time.sleep(0.2)
        canaries = [
            self.place.model_of("tried", user=f"{what} {one}") for one in range(40)
        ].count("sim/sim-better")
        assert canaries < 10, what
        assert requests_of(self.evil) == 0, what
        self.assert_keys_open_no_more_than_before()

    def assert_keys_open_no_more_than_before(self) -> None:
        assert self.asked_with(self.restricted) == self.refused
        assert self.asked_with(self.revoked) == httpx.codes.UNAUTHORIZED
        made = self.place.api(
            "POST", "/keys", {"name": "further"}, token=self.viewer["text"]
        ).status_code
        assert made in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


def requests_of(sim: Simulator) -> int:
    return sum(model.get("requests", 0) for model in sim.stats().get("models", {}).values())
