import re
import zlib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import structlog

from harness.agents import switches
from harness.agents.records import AgentGrants
from harness.frame.errors import StoreUnavailable
from harness.frame.people.access import OPERATOR, SYSTEM
from harness.frame.signing.audit_log import AuditLog
from harness.operations import dashboard_sessions, keys
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.control.short_policies import POLICY, approved
from tests.support.control.waiting_switch import waiting_switch
from tests.support.site.management_api import (
    PEOPLE,
    Door,
    awaiting_approval,
    error_of,
)

ROLES = ("viewer", "proposer", "approver", "admin")
# What a read needs besides its path.
QUERIES = {
    "/models/resolve": "?name=sim/base",
    "/models/match": "?name=better",
}
# What names in paths stand for; the other ones are of what `names` made.
PARTS = {
    "{route}": "chat",
    "{model}": "sim/base",
    "{provider}": "sim",
    "{name}": "vera",
}
# Its provider lists no models here.
EMERGENCY = {
    "route": "chat",
    "target": "sim/worse",
    "reason": "a leak",
    "for_s": 3600,
}
ASKS_A_PROVIDER = "POST /providers/sim/models"
# What is asked, with which body, and the least role that it takes.
WRITES = {
    "POST /models": ({"provider": "sim", "model": "new"}, "proposer"),
    "POST /evals": ({"suite": "colours", "target": "sim/base"}, "proposer"),
    "POST /evals/{run}/cancel": ({"reason": "a drill"}, "proposer"),
    "POST /proposals": (
        {"route": "chat", "candidate": "sim/equal"},
        "proposer",
    ),
    "POST /proposals/preview": (
        {"route": "chat", "candidate": "sim/equal"},
        "proposer",
    ),
    "POST /proposals/{proposal}/cancel": ({}, "approver"),  # another's
    "POST /proposals/{proposal}/retry": ({}, "approver"),
    "POST /proposals/{proposal}/approve": ({}, "approver"),
    "POST /proposals/{proposal}/reject": ({"reason": "no"}, "approver"),
    "POST /proposals/{proposal}/confirm-same-model": ({"reason": "one model"}, "approver"),
    "POST /proposals/{proposal}/labellings": ({}, "proposer"),
    "POST /proposals/{proposal}/labellings/plan": ({}, "proposer"),
    "POST /labellings/{labelling}/next": ({}, "proposer"),
    "POST /labellings/{labelling}/close": ({"reason": "left"}, "approver"),
    "POST /labellings/{labelling}/labels": ({"number": 1, "choice": "tie"}, "proposer"),
    "POST /routes/chat/accepted-costs": (
        {
            "candidate": "sim/equal",
            "ratio": 2,
            "because": "it helps",
        },
        "approver",
    ),
    "POST /routes/chat/rollback": ({"reason": "no"}, "approver"),
    "POST /canaries/chat/pause": ({"reason": "a drill"}, "approver"),
    "POST /canaries/chat/resume": ({"reason": "a drill"}, "approver"),
    "POST /canaries/chat/abort": ({"reason": "a drill"}, "approver"),
    "POST /canaries/chat/advance": ({"reason": "on"}, "approver"),
    "POST /canaries/chat/promote": ({"reason": "now"}, "approver"),
    "POST /canaries/chat/finish": ({"reason": "fine"}, "approver"),
    "POST /shadows/chat/start": (
        {
            "candidate": "sim/worse",
            "reason": "a look",
            "usd_per_day": None,
        },
        "approver",
    ),
    "POST /shadows/chat/stop": ({}, "proposer"),
    "POST /switches": (
        {"force": "provider:sim", "reason": "a drill"},
        "approver",
    ),
    "POST /switches/{switch}/lift": ({"reason": "over"}, "approver"),
    "POST /break-glass": (EMERGENCY, "approver"),
    "POST /break-glass/{glass}/confirm": (None, "admin"),
    "POST /break-glass/{glass}/end": ({"reason": "over"}, "approver"),
    "POST /routes/chat/drift/run": ({}, "proposer"),
    "POST /routes/chat/drift/accept": ({"reason": "fine"}, "approver"),
    "POST /switch-requests/{request}/approve": ({}, "approver"),
    "POST /switch-requests/{request}/reject": ({"reason": "no"}, "approver"),
    "POST /agent-grants/{grant}/revoke": ({}, "approver"),
    "POST /alerts/test": (None, "admin"),
    "GET /captures/{capture}": (None, "approver"),
    "POST /caller-arms": ({"user": "user-7"}, "viewer"),
    "GET /canaries/chat/callers": (None, "approver"),
    "DELETE /captures?all=true": (None, "admin"),
    "POST /user-deletions": (
        {"user": "u-1", "reason": "ticket 12"},
        "admin",
    ),
    "POST /routes": ({"name": "mail", "incumbent": "sim/base"}, "admin"),
    "PATCH /routes/chat": ({"description": "Answers"}, "admin"),
    "PUT /routes/chat/fallbacks": (
        {"fallbacks": [], "reason": "none is needed"},
        "admin",
    ),
    "POST /prices": (
        {"model": "sim/base", "input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0},
        "admin",
    ),
    "POST /credentials/providers": (
        {"name": "sim", "value": "sk-x"},
        "admin",
    ),
    "PUT /credentials/providers/sim": (
        {"apiBase": "http://127.0.0.1:9/v1"},
        "admin",
    ),
    "DELETE /credentials/providers/sim": (None, "admin"),
    "POST /check": (None, "proposer"),
    ASKS_A_PROVIDER: (None, "proposer"),
    "PUT /providers/sim": ({}, "admin"),
    "DELETE /providers/sim": (None, "admin"),
    "POST /keys": ({"name": "carl"}, "admin"),
    "DELETE /keys/{key}": (None, "admin"),
    "POST /people/vera/declarations": ({"reason": "we met"}, "admin"),
    "POST /dashboard-sessions/{session}/end": (
        {"reason": "a lost laptop"},
        "admin",
    ),
    "PUT /keys/{key}/limits": ({"requests_per_min": 60}, "admin"),
    "PUT /keys/{key}/opt-outs": ({"opt_outs": ["canary"]}, "admin"),
}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Door:
    """Read by all tests here; a write that succeeds must not disturb another."""
    return Door(world_of(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def names(door: Door) -> dict[str, str]:
    world = door.world
    waiting = awaiting_approval(world)
    run = waiting.runs["colours"].candidate
    door.post(f"/proposals/{waiting.id}/approve", role="approver")
    world.run_once()
    door.post("/canaries/chat/abort", {"reason": "over"})
    key, _ = keys.create_key(
        world.context(),
        SYSTEM,
        "old",
        secret=SECRET,
    )
    shadow = {
        "candidate": "sim/worse",
        "reason": "a look",
        "usd_per_day": None,
    }
    door.post("/shadows/chat/start", shadow)
    door.post("/shadows/chat/stop", {})
    switch = door.post("/switches", {"force": "provider:sim", "reason": "a drill"})
    asked = door.post("/break-glass", EMERGENCY, role="approver")
    door.post(f"/break-glass/{asked['id']}/end", {"reason": "over"})
    assert waiting.verdict
    ctx = world.context()
    approved_switch = switches.approve_switch(ctx, SYSTEM, waiting_switch(ctx).id)
    with ctx.store.read() as tx:
        (grant,) = AgentGrants(tx).not_revoked(agent=approved_switch.agent)
    link = dashboard_sessions.create_link(ctx, OPERATOR, secret=SECRET)[1]
    lasts = timedelta(hours=1)
    going_on = dashboard_sessions.open_link(
        ctx,
        link,
        secret=SECRET,
        lasts=lasts,
    )[0]
    labelling = door.post(
        f"/proposals/{waiting.id}/labellings", {"people": sorted(PEOPLE.values())}
    )
    return {
        "labelling": labelling["id"],
        "session": going_on.session.id,
        "request": waiting_switch(ctx).id,
        "grant": grant.id,
        "proposal": waiting.id,
        "run": run,
        "verdict": waiting.verdict,
        "key": key.id,
        "switch": switch["id"],
        "glass": asked["id"],
        "capture": "cap_1",
    }


def world_of(folder: Path, *, people_approve: bool = True) -> SmallInstallation:
    policy = approved() if people_approve else POLICY
    made = SmallInstallation(folder, policy=policy)
    made.set_up()
    return made


def documented(door: Door) -> set[str]:
    verbs = {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for path, operations in door.document["paths"].items()
        for method in operations
    }
    for part, name in PARTS.items():
        verbs = {verb.replace(part, name) for verb in verbs}
    return verbs


def reads(door: Door, names: Mapping[str, str]) -> list[str]:
    writes = {verb.partition("?")[0] for verb in WRITES}
    paths = [verb.split()[1] for verb in documented(door) - writes]
    return sorted((path + QUERIES.get(path, "")).format(**names) for path in paths)


def test_every_role_may_read(door: Door, names: dict[str, str]) -> None:
    paths = reads(door, names)
    assert len(paths) > 50
    for path in paths:
        for role in ROLES:
            assert door.send("GET", path, role=role).status_code == 200, (
                path,
                role,
            )


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("verb", WRITES)
def test_a_verb_takes_its_role_and_no_less(
    verb: str,
    role: str,
    door: Door,
    names: dict[str, str],
) -> None:
    method, path = verb.split()
    body, least = WRITES[verb]
    answer = door.send(
        method,
        path.format(**names),
        role=role,
        json=body,
    )
    if ROLES.index(role) < ROLES.index(least):
        assert error_of(answer, 403)["type"] == "NotAllowed"
    else:
        # Done, or refused for another reason than the role: the canary has ended, say.
        others = (502,) if verb == ASKS_A_PROVIDER else ()
        assert answer.status_code in (200, 201, 204, 404, 409, *others), answer.text


def test_the_table_above_has_every_write_and_nothing_that_is_gone(door: Door) -> None:
    writes = {verb.partition("?")[0] for verb in WRITES}
    there = documented(door)
    assert writes <= there
    assert {verb for verb in there if not verb.startswith("GET ")} <= writes


# What control alone says: of a proposal, a verdict, a rollout, a key, an event. A body may name
# whose a new key is, and the verdict that an approver saw.
CONTROLS = {
    "approver",
    "proposer",
    "proposer_principal",
    "proposer_key",
    "principal",
    "actor",
    "phase",
    "state",
    "outcome",
    "verdict",
    "evidence",
    "widened",
    "self_approval",
    "rollout",
    "signature",
    "prev_signature",
    "created_by",
    "created_with",
    "created_at",
    "revision",
    "step",
    "hash",
    "id",
    "installation",
    "epoch",
}
GIVEN = {
    "POST /keys": {"principal"},
    "POST /proposals/{proposal}/approve": {"verdict"},
}


def test_no_body_has_a_field_that_only_control_sets(door: Door) -> None:
    components = door.document["components"]["schemas"]
    seen = 0
    for path, operations in door.document["paths"].items():
        for method, operation in operations.items():
            if "requestBody" not in operation:
                continue
            content = operation["requestBody"]["content"]["application/json"]["schema"]
            verb = f"{method.upper()} {path.removeprefix('/api/v1')}"
            for schema in objects_of(content, components):
                seen += 1
                named = {
                    re.sub("([A-Z])", r"_\1", name).lower() for name in schema["properties"]
                }
                assert schema["additionalProperties"] is False, verb
                assert not named & CONTROLS - GIVEN.get(verb, set()), verb
    assert seen > 20


def objects_of(schema: object, components: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each object with properties of its own, in a body's schema or below it."""
    if isinstance(schema, list):
        for part in schema:
            yield from objects_of(part, components)
    elif isinstance(schema, dict):
        if "$ref" in schema:
            yield from objects_of(components[schema["$ref"].rpartition("/")[2]], components)
        if "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects_of(part, components)


WITH_BODY = {verb: body for verb, (body, _) in WRITES.items() if isinstance(body, dict)}


@pytest.mark.parametrize("verb", WITH_BODY)
def test_a_body_that_sets_what_only_control_sets_changes_nothing(
    verb: str,
    door: Door,
    names: dict[str, str],
) -> None:
    method, path = verb.split()
    with door.world.store.read() as tx:
        before = AuditLog(tx).tail(1)
    for name in ("signature", "approver", "createdBy"):
        body = {**WITH_BODY[verb], name: "eve"}
        answer = door.send(method, path.format(**names), json=body)
        error_of(answer, answer.status_code)
        assert answer.status_code in (400, 422), answer.text
    with door.world.store.read() as tx:
        assert AuditLog(tx).tail(1) == before


def own_address(word: str) -> str:
    return str(IPv4Address(zlib.crc32(word.encode("latin-1"))))


def test_nothing_opens_without_a_key(door: Door, names: dict[str, str]) -> None:
    for path in (
        *reads(door, names),
        "/openapi.json",
        "/nowhere",
        "//metrics",
        "//docs",
    ):
        # From an address of its own each time: failed attempts are counted by it.
        answer = door.send(
            "GET",
            path,
            role=None,
            address=own_address(path),
        )
        assert error_of(answer, 401)["type"] == "Unauthenticated", path
        assert answer.headers["www-authenticate"] == 'Bearer realm="swapproof"'


@pytest.mark.parametrize(
    "sent",
    [
        "Bearer sg-mgmt-wrong",
        "Bearer sk-sg-wrong",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "sg-mgmt-wrong",
        "Bearer sg-mgmt-\xe9",
    ],
)
def test_a_wrong_key_opens_nothing(sent: str, door: Door) -> None:
    headers = {"authorization": sent.encode("latin-1")}
    answer = door.send("GET", "/routes", headers=headers, address=own_address(sent))  # type: ignore[arg-type]  # bytes on purpose
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_health_checks_open_without_a_key_and_say_nothing_else(door: Door) -> None:
    for path in ("//healthz", "//readyz"):
        answer = door.send("GET", path, role=None)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readyz_says_no_while_the_database_is_away_and_the_log_says_each_reason_once(
    tmp_path: Path,
) -> None:
    world = world_of(tmp_path)
    door = Door(world)
    etag = world.store.etag
    reasons = ["refused the connection"] * 3 + ["is at revision 0002"] * 2 + [""] * 2

    def answer() -> str:
        if reason := reasons.pop(0):
            raise StoreUnavailable(reason)
        return etag()

    world.store.etag = answer  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logged:
        answers = [door.send("GET", "//readyz", role=None) for _ in range(7)]
    statuses = [(answer.status_code, answer.json()["status"]) for answer in answers]
    assert statuses == [(503, "not ready")] * 5 + [(200, "ok")] * 2
    told = [
        (
            line["event"],
            line.get("error"),
            line["log_level"],
        )
        for line in logged
    ]
    assert told == [
        ("not_ready", "refused the connection", "warning"),
        ("not_ready", "is at revision 0002", "warning"),
        ("ready", None, "info"),
    ]


@pytest.mark.req("F3")
def test_guessing_keys_is_slowed_down_for_that_address_alone(tmp_path: Path) -> None:
    door = Door(world_of(tmp_path))
    wrong = {"authorization": "Bearer sg-mgmt-wrong"}
    answers = [
        door.send(
            "GET",
            "/routes",
            headers=wrong,
            address="1.1.1.1",
        )
        for _ in range(12)
    ]
    assert [a.status_code for a in answers] == [401] * 10 + [429] * 2
    assert answers[-1].headers["retry-after"] == "1"

    # A right key is served however many wrong ones its address sent.
    assert door.send("GET", "/routes", address="1.1.1.1").status_code == 200
    assert (
        door.send(
            "GET",
            "/routes",
            headers=wrong,
            address="2.2.2.2",
        ).status_code
        == 401
    )
    door.world.clock.advance(1)
    assert (
        door.send(
            "GET",
            "/routes",
            headers=wrong,
            address="1.1.1.1",
        ).status_code
        == 401
    )


@pytest.mark.req("F3")
def test_wrong_keys_from_one_network_of_ipv6_are_counted_together(tmp_path: Path) -> None:
    door = Door(world_of(tmp_path))
    wrong = {"authorization": "Bearer sg-mgmt-wrong"}

    def guess(address: str) -> int:
        return door.send(
            "GET",
            "/routes",
            headers=wrong,
            address=address,
        ).status_code

    assert [guess(f"2001:db8::{n}") for n in range(1, 13)] == [401] * 10 + [429] * 2
    assert guess("2001:db8:0:1::1") == 401


def test_metrics_open_for_a_viewer_and_for_the_metrics_token_alone(tmp_path: Path) -> None:
    word = "scrape-me"
    door = Door(world_of(tmp_path), metrics_token=word, turn_age_s=lambda: 1.5)
    token = {"authorization": f"Bearer {word}"}

    text = door.send("GET", "//metrics", headers=token).text
    assert door.send("GET", "//metrics", role="viewer").text == text
    assert 'swapproof_proposals{phase="canary"} 0.0' in text
    assert "swapproof_reconcile_age_seconds 1.5" in text
    assert door.send("GET", "/routes", headers=token).status_code == 401
    (elsewhere := tmp_path / "elsewhere").mkdir()
    without = Door(world_of(elsewhere))
    for headers in (token, {"authorization": "Bearer "}):
        assert without.send("GET", "//metrics", headers=headers).status_code == 401


def test_metrics_show_a_live_canary(tmp_path: Path) -> None:
    world = world_of(tmp_path, people_approve=False)
    door = Door(world)
    world.decided("sim/better")
    text = door.send("GET", "//metrics").text
    assert 'swapproof_canary_weight_bps{route="chat",state="waiting"} 100.0' in text
    assert 'swapproof_canary_log_e{route="chat"} 0.0' in text
    assert 'swapproof_proposals{phase="canary"} 1.0' in text
