"""A canary's audience: who is first, who never is in, and how callers try to change it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.canary.audit import hash_policy
from harness.frame.people.audience import (
    Audience,
    AudienceRule,
    CallerClaims,
    CallerSet,
    CallerSource,
    StepAudience,
)
from harness.frame.plain_data import digest, from_plain, to_plain, to_shown
from harness.gate.online.guardrails import ExposureRule, Guardrails
from harness.gate.online.rollout import name_first_callers
from harness.gate.policy import CanaryPolicy, CanaryStep
from harness.routing.table import (
    Arm,
    Canary,
    Handover,
    Route,
    Snapshot,
    choose_arm,
    place_caller,
)
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import AUTH, CHAT, Door, Place, Script
from tests.support.router.live_router import CANDIDATE, INCUMBENT, NARROW_KEY, snapshot

pytestmark = pytest.mark.req("F3")

KEY, USER, HEADER, FIELD = CallerSource
STAFF: Final = CallerSet(USER, prefixes=("staff:",))
AUDIENCE: Final = Audience(
    first=(STAFF, CallerSet(HEADER, "X-Team", values=("platform",))),
    never=(
        CallerSet(KEY, values=("customer-x",)),
        CallerSet(USER, values=("Müller & Söhne",)),
        CallerSet(HEADER, "x-tenant", values=("x",)),
        CallerSet(FIELD, "metadata.tenant", values=("x", "42")),
    ),
)
ALL_GUARDRAILS: Final = Guardrails().tolerated()


def rule_of(audience: Audience) -> ExposureRule:
    audiences = (StepAudience(1, audience),)
    return ExposureRule(
        block_size=1, local_alpha=0.01, guardrails=ALL_GUARDRAILS, audiences=audiences
    )


def snapshot_of(
    audience: Audience = AUDIENCE, weight_bps: int = 1, key_name: str = "web"
) -> Snapshot:
    first = snapshot("http://up", weight_bps=weight_bps, rule=rule_of(audience))
    names = {"k-good": key_name, "k-narrow": "customer-x"}
    keys = [replace(key, name=names.get(key.id, ""), routes=frozenset()) for key in first.keys]
    return replace(first, keys=tuple(keys))


async def arm_of(
    door: Door,
    *headers: tuple[bytes, bytes],
    auth: tuple[bytes, bytes] = AUTH,
    **fields: object,
) -> str:
    return await arm_of_fields(door, headers, fields, auth)


async def arm_of_fields(
    door: Door,
    headers: tuple[tuple[bytes, bytes], ...],
    fields: Mapping[str, object],
    auth: tuple[bytes, bytes] = AUTH,
) -> str:
    body = json.dumps({"model": "support", "messages": [], **fields}).encode()
    status, found, _ = await door.call(CHAT, body, headers=(auth, *headers))
    assert status == 200
    return found[b"x-swapproof-arm"].decode()


@pytest.mark.spine
@pytest.mark.req("H5")
async def test_a_rule_puts_a_caller_in_before_the_share_does(tmp_path: Path) -> None:
    door = Door(tmp_path, first=snapshot_of())
    assert await arm_of(door, user="staff:ada") == "canary"
    assert await arm_of(door, (b"x-team", b"platform")) == "canary"
    assert await arm_of(door, user="bob") == "incumbent"


async def test_a_client_key_is_named_by_the_admins_name(tmp_path: Path) -> None:
    narrow = (b"authorization", f"Bearer {NARROW_KEY}".encode())
    door = Door(tmp_path, first=snapshot_of(weight_bps=10_000))
    assert await arm_of(door, user="bob") == "canary"
    assert await arm_of(door, user="bob", auth=narrow) == "incumbent"
    group = Audience(first=(CallerSet(KEY, prefixes=("staff-",)),))
    door = Door(tmp_path, first=snapshot_of(group, key_name="staff-web"))
    assert await arm_of(door) == "canary"


ENTRIES: Final[dict[str, tuple[tuple[tuple[bytes, bytes], ...], dict[str, object]]]] = {
    "by the sticky header": (((b"x-swapproof-sticky", b"staff:x"),), {}),
    "as a member of staff": ((), {"user": "staff:x"}),
    "by a list of teams": (((b"x-team", b"platform, other"),), {}),
}


@pytest.mark.spine
@pytest.mark.req("H5")
@pytest.mark.parametrize("way", ENTRIES)
async def test_an_excluded_client_key_does_not_get_in(tmp_path: Path, way: str) -> None:
    headers, body = ENTRIES[way]
    door = Door(tmp_path, first=snapshot_of(weight_bps=10_000))
    narrow = (b"authorization", f"Bearer {NARROW_KEY}".encode())
    assert await arm_of_fields(door, headers, body, narrow) == "incumbent"


SPELLINGS: Final[dict[str, tuple[tuple[tuple[bytes, bytes], ...], dict[str, object]]]] = {
    "in capitals": ((), {"user": "MÜLLER & SÖHNE"}),
    "decomposed": ((), {"user": "Mu\u0308ller & So\u0308hne"}),
    "in full width": ((), {"user": "Ｍüller & Söhne"}),
    "with an invisible character": ((), {"user": "Müller\u200b & Söhne"}),
    "with spaces": ((), {"user": "  Müller  &  Söhne "}),
    "with other spaces": ((), {"user": "Müller\t&\u2003Söhne"}),
    "without spaces": ((), {"user": "Müller&Söhne"}),
    "with a variation selector": ((), {"user": "Müller & Söhne\ufe0f"}),
    "with a blank letter": ((), {"user": "Müller\u3164 & \u2800Söhne"}),
    "by another field": ((), {"user": "staff:a", "safety_identifier": "Müller & Söhne"}),
    "in the metadata": ((), {"user": "staff:a", "metadata": {"user_id": "Müller & Söhne"}}),
    "in a list of the metadata": ((), {"metadata": {"userId": ["Müller & Söhne"]}}),
    "as a gateway's user": (
        (),
        {"providerOptions": {"gateway": {"user": {"id": "Müller & Söhne"}}}},
    ),
    "in the sticky header": (((b"x-swapproof-sticky", "Müller & Söhne".encode()),), {}),
    "in baggage": (((b"baggage", b"user_id=M%C3%BCller%20%26%20S%C3%B6hne;a=b"),), {}),
    "in Latin-1": (((b"x-user-id", "Müller & Söhne".encode("latin-1")),), {}),
    "behind another person's header": (
        ((b"x-user", b"a"), (b"x-forwarded-email", "Müller & Söhne".encode())),
        {},
    ),
    "in a list": ((), {"user": ["staff:a", "Müller & Söhne"]}),
    "in an object": ((), {"user": {"id": "Müller & Söhne"}}),
    "in the second header": (((b"x-tenant", b"y"), (b"x-tenant", b"x")), {}),
    "in a joined header": (((b"x-tenant", b"y, X"),), {}),
    "as a number": ((), {"metadata": {"tenant": 42}}),
    "as a fraction": ((), {"metadata": {"tenant": 42.0}}),
    "as a boolean": ((), {"metadata": {"tenant": True}}),
    "in a list of lists": ((), {"metadata": {"tenant": [["x"]]}}),
    "in an empty object": ((), {"metadata": {"tenant": {}}}),
    "with metadata of another type": ((), {"metadata": "tenant=x"}),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_lets_an_excluded_caller_in(tmp_path: Path, spelling: str) -> None:
    headers, body = SPELLINGS[spelling]
    door = Door(tmp_path, first=snapshot_of(weight_bps=10_000))
    assert await arm_of_fields(door, headers, {"user": "staff:a", **body}) == "incumbent"


async def test_a_body_that_names_a_user_twice_is_refused(tmp_path: Path) -> None:
    door = Door(tmp_path, first=snapshot_of(weight_bps=10_000))
    body = b'{"model":"support","messages":[],"user":"a","user":"b"}'
    status, _, _ = await door.call(CHAT, body, headers=(AUTH,))
    assert status == 400


@pytest.mark.parametrize(
    "user", ["Staff:ada", "staff", "sTAFF:ada", "ｓtaff:ada", "x staff:ada", " staff:ada"]
)
async def test_only_the_exact_spelling_puts_a_caller_first(tmp_path: Path, user: str) -> None:
    door = Door(tmp_path, first=snapshot_of())
    assert await arm_of(door, user=user) == "incumbent"


async def test_a_caller_that_is_first_does_not_get_out_by_another_bucket(
    tmp_path: Path,
) -> None:
    door = Door(tmp_path, first=snapshot_of())
    arms = {
        await arm_of(door, (b"x-swapproof-sticky", b"%d" % number), user="staff:ada")
        for number in range(20)
    }
    assert arms == {"canary"}


async def test_rules_assign_and_measure_nothing(tmp_path: Path) -> None:
    narrow = (b"authorization", f"Bearer {NARROW_KEY}".encode())
    door = Door(tmp_path, first=snapshot_of())
    for number in range(5):
        await arm_of(door, user=f"staff:{number % 2}")
        await arm_of(door, user=f"customer {number}", auth=narrow)
    await arm_of(door, user="bob")
    door.recorder.flush(final=True)
    measured = [block for block in door.kept.blocks.values() if block.rollout == "r-1"]
    assert sum(block.units for block in measured) == 1
    assert [block.canary_units for block in measured if block.units] == [0]
    by_rule = [block.uncounted_callers["audience"] for block in measured if block.uncounted]
    assert (sum(n.failures for n in by_rule), sum(n.canary for n in by_rule)) == (10, 5)


async def test_failures_of_first_callers_have_a_ledger_of_their_own(tmp_path: Path) -> None:
    script: Script = {INCUMBENT: completion(), CANDIDATE: error(500)}
    door = Door(tmp_path, script, first=snapshot_of())
    for number in range(6):
        await arm_of(door, user=f"staff:{number % 3}")
    assert not door.kept.alerts
    door.recorder.flush(final=True)
    ledger = name_first_callers("r-1")
    first = [block for block in door.kept.blocks.values() if block.rollout == ledger]
    assert sum(block.canary_units for block in first) == 3
    assert sum(block.canary_failures for block in first) == 3
    assert {block.units - block.canary_units for block in first} == {0}


async def test_a_route_without_audience_reads_no_claim(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: completion(), CANDIDATE: completion()}, weight_bps=1)
    route = place.holder.current.routes["support"] if place.holder.current else None
    assert route is not None
    assert route.audience is None


def canary_of(weight_bps: int, *, control: bool = False) -> Canary:
    return Canary("t_new", weight_bps, "salt", "r-1", rule_of(AUDIENCE), control=control)


texts = st.text(max_size=20)
claims = st.lists(st.one_of(texts, st.none(), st.just("staff:a"), st.just("x")), max_size=4)


@given(
    users=claims,
    tenant=claims,
    weights=st.lists(st.integers(1, 9_999), min_size=2, unique=True),
)
def test_a_caller_never_goes_back_to_the_incumbent(
    users: list[str | None], tenant: list[str | None], weights: list[int]
) -> None:
    caller = CallerClaims("web", users, lambda name: tenant if name == "x-tenant" else ())
    arms = [
        place_caller(Route("r", 1, "t_old", canary_of(weight)), caller, f"user:{users}").arm
        for weight in sorted(weights)
    ]
    first = arms.index(Arm.CANARY) if Arm.CANARY in arms else len(arms)
    assert set(arms[:first]) <= {Arm.INCUMBENT}
    assert set(arms[first:]) <= {Arm.CANARY}


@given(users=claims, weight_bps=st.integers(1, 9_999))
def test_a_bake_keeps_who_was_never_in(users: list[str | None], weight_bps: int) -> None:
    caller = CallerClaims("web", users)
    canary = Route("r", 1, "t_old", canary_of(weight_bps))
    bake = Route("r", 1, "t_new", holdback=canary_of(100, control=True))
    before, after = place_caller(canary, caller, "key"), place_caller(bake, caller, "key")
    assert before.rule is after.rule
    if before.rule is AudienceRule.NEVER:
        assert (before.arm, after.arm) == (Arm.INCUMBENT, Arm.HOLDBACK)
    if before.rule is AudienceRule.FIRST:
        assert (before.arm, after.arm) == (Arm.CANARY, Arm.INCUMBENT)


@given(key=texts, weight_bps=st.integers(1, 9_999))
def test_the_rest_is_drawn_as_without_an_audience(key: str, weight_bps: int) -> None:
    route = Route("r", 1, "t_old", canary_of(weight_bps))
    place = place_caller(route, CallerClaims("web"), key)
    assert place == (choose_arm(route, key), None, None)


def test_a_step_takes_its_own_audience_or_an_earlier_one() -> None:
    wide = replace(AUDIENCE, never=())
    steps = (CanaryStep(100, 1), CanaryStep(500, 1, audience=wide), CanaryStep(900, 1))
    policy = CanaryPolicy(steps=steps, audience=AUDIENCE)
    assert [step.audience for step in policy.audiences] == [AUDIENCE, wide, wide]
    assert policy.never_measured == ""
    assert "Müller" in replace(policy, steps=steps[:1]).never_measured
    assert CanaryPolicy(steps=steps[:1]).audiences == ()


async def test_a_conversation_of_a_caller_that_becomes_first_keeps_its_model(
    tmp_path: Path,
) -> None:
    first = snapshot_of()
    route = first.table.routes["support"]
    assert route.canary is not None
    until_s = 1e12
    canary = replace(route.canary, handover=Handover(until_s))
    moved = replace(route, canary=canary)
    table = replace(first.table, routes={**first.table.routes, "support": moved})
    door = Door(tmp_path, first=replace(first, table=table))
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "and?"},
    ]
    assert await arm_of(door, user="staff:old", messages=turns) == "incumbent"
    assert await arm_of(door, user="staff:new", messages=turns[:1]) == "canary"
    assert await arm_of(door, user="staff:new", messages=turns) == "canary"


def test_a_policy_without_an_audience_keeps_the_hash_of_older_events() -> None:
    shown: Any = to_shown(CanaryPolicy())
    steps = [{k: v for k, v in one.items() if k != "audience"} for one in shown["steps"]]
    older = {**{k: v for k, v in shown.items() if k != "audience"}, "steps": steps}
    assert hash_policy(CanaryPolicy()) == digest(older)
    assert hash_policy(CanaryPolicy(audience=AUDIENCE)) != digest(older)


async def test_a_flag_s_targeting_key_is_a_user(tmp_path: Path) -> None:
    door = Door(tmp_path, first=snapshot_of())

    async def variant_of(user: str) -> str:
        body = json.dumps({"context": {"targetingKey": user}}).encode()
        path = "/ofrep/v1/evaluate/flags/support"
        status, _, found = await door.call(path, body, headers=(AUTH,))
        assert status == 200
        return str(json.loads(found)["variant"])

    assert await variant_of("staff:ada") == "canary"
    assert await variant_of("MÜLLER & SÖHNE") == "incumbent"
    door.recorder.flush(final=True)
    assert not [block for block in door.kept.blocks.values() if block.units]


def test_a_stored_rule_keeps_its_audiences() -> None:
    rule = rule_of(AUDIENCE)
    assert from_plain(ExposureRule, json.loads(json.dumps(to_plain(rule)))) == rule
