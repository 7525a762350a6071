import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from harness.agents.caller import (
    AGENT_HEADER,
    AgentCaller,
    sign_agent_header,
)
from harness.frame.errors import InputError
from harness.frame.people.limits import KeyLimits
from harness.providers.target import DataClasses, Target
from harness.routing.agent import AgentGrant, GrantKind
from harness.routing.route_changes import CreateRoute, apply_change
from harness.routing.route_settings import Stakes
from harness.routing.table import KeyGrant, Snapshot
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Door, code
from tests.support.router.live_router import (
    SECRET,
    served,
    snapshot,
    switch_of,
)

pytestmark = pytest.mark.req("C5", "E1", "E2", "D8")

NOW = ManualClock().now()
LITERAL = Target("up", "m-literal")
NAME = "@up/m-literal"
GRANT = AgentGrant(
    "gr_1",
    agent="ag_1",
    target=LITERAL.id,
    target_name=LITERAL.name,
    kind=GrantKind.SWITCH,
    granted_by="ann",
    granted_with="mk_1",
    reason="cheaper",
    created_at=NOW,
    expires_at=NOW + timedelta(hours=1),
    session="se_1",
)
CALLER = AgentCaller("ag_1", "se_1", "k-good", GRANT.id)
BODY = ASK.replace(b"support", NAME.encode())
Answer = tuple[int, Mapping[bytes, bytes], bytes]


def first(*grants: AgentGrant, keys: tuple[KeyGrant, ...] = ()) -> Snapshot:
    made = snapshot("http://up")
    table = replace(made.table, targets={**made.table.targets, LITERAL.id: LITERAL})
    return replace(
        made,
        table=table,
        keys=(*made.keys, *keys),
        agent_grants=grants,
    )


def door(
    folder: Path,
    *grants: AgentGrant,
    keys: tuple[KeyGrant, ...] = (),
) -> Door:
    return Door(folder, first=first(*grants, keys=keys))


async def call(
    at: Door,
    caller: AgentCaller = CALLER,
    body: bytes = BODY,
) -> Answer:
    header = sign_agent_header(caller, SECRET, at.clock.now().timestamp())
    return await at.call(CHAT, body, headers=((AGENT_HEADER, header),))


@pytest.mark.parametrize("caller", [CALLER, AgentCaller("ag_1", "se_1")])
async def test_the_header_stands_for_the_key_that_it_names_or_for_none(
    tmp_path: Path, caller: AgentCaller
) -> None:
    at = door(tmp_path)

    status, headers, _ = await call(
        at,
        caller,
        ASK,
    )

    assert status == 200
    assert headers[b"x-swapproof-route"] == b"support"
    (request,) = at.transport.seen
    sent = b"".join((*[b"%b: %b" % header for header in request.headers], request.body))
    assert b"swapproof" not in sent.lower()


async def test_the_routes_and_limits_of_the_named_key_hold(tmp_path: Path) -> None:
    limits = KeyLimits(requests_per_min=1)
    at = door(tmp_path, keys=(KeyGrant("k-slow", "h", limits=limits),))
    slow = replace(CALLER, key="k-slow")

    assert (await call(at, slow, ASK))[0] == 200
    status, _, body = await call(
        at,
        slow,
        ASK,
    )

    assert (status, code(body)) == (429, "rate_limit_exceeded")
    assert (await call(at, body=ASK))[0] == 200
    status, _, body = await call(
        at,
        replace(CALLER, key="k-narrow"),
        ASK,
    )
    assert (status, code(body)) == (403, "route_not_allowed")


@pytest.mark.parametrize(
    ("caller", "headers"),
    [
        (replace(CALLER, key="k-revoked"), ()),
        (CALLER, (AUTH,)),
        (CALLER, ((b"x-api-key", b"sk-sg-good"),)),
        (CALLER, ((AGENT_HEADER, b"v1.e30.00"),)),
    ],
    ids=["unknown key", "beside a bearer key", "beside an API key", "twice"],
)
async def test_a_header_that_is_not_alone_or_names_no_key_is_refused(
    tmp_path: Path,
    caller: AgentCaller,
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    at = door(tmp_path, GRANT)
    given = (
        AGENT_HEADER,
        sign_agent_header(caller, SECRET, at.clock.now().timestamp()),
    )
    for together in ((given, *headers), (*headers, given)):
        status, _, body = await at.call(
            CHAT,
            ASK,
            headers=together,
        )
        assert (status, code(body)) == (401, "invalid_agent_header")
    assert at.recorder.counters["agent_callers_refused"] == 2
    for secret in (b"another secret", b""):
        forged = (
            AGENT_HEADER,
            sign_agent_header(CALLER, secret, at.clock.now().timestamp()),
        )
        for together in ((forged,), (AUTH, forged)):
            status, _, body = await at.call(
                CHAT,
                ASK,
                headers=together,
            )
            assert (status, code(body)) == (401, "invalid_agent_header")
    assert not at.transport.seen


async def test_a_header_is_refused_once_it_is_stale(tmp_path: Path) -> None:
    at = door(tmp_path, GRANT)
    header = (
        AGENT_HEADER,
        sign_agent_header(CALLER, SECRET, at.clock.now().timestamp()),
    )
    assert (await at.call(CHAT, ASK, headers=(header,)))[0] == 200
    at.clock.advance(61)
    status, _, body = await at.call(
        CHAT,
        ASK,
        headers=(header,),
    )
    assert status == 401
    assert b"clocks" in body


async def test_a_grant_opens_its_target_to_its_session(tmp_path: Path) -> None:
    at = Door(tmp_path, lambda _: completion(), first=first(GRANT))

    status, headers, body = await call(at)

    assert status == 200
    assert headers[b"x-swapproof-route"] == NAME.encode()
    assert headers[b"x-swapproof-target"] == b"up/m-literal"
    assert headers[b"x-swapproof-arm"] == b"incumbent"
    assert json.loads(body)["model"] == NAME
    (request,) = at.transport.seen
    assert json.loads(request.body)["model"] == "m-literal"
    # Whichever routes the key may use.
    assert (await call(at, replace(CALLER, key="k-narrow")))[0] == 200


async def test_a_grant_without_a_session_opens_its_target_to_all_of_the_agents(
    tmp_path: Path,
) -> None:
    baseline = replace(GRANT, session="", kind=GrantKind.BASELINE)
    at = door(tmp_path, baseline)
    assert (await call(at, replace(CALLER, session="se_9")))[0] == 200
    assert (await call(at, replace(CALLER, agent="ag_2")))[0] == 404


@pytest.mark.parametrize(
    ("caller", "name"),
    [
        *(
            (replace(CALLER, **other), NAME)
            for other in (
                {"agent": "ag_2"},
                {"session": "se_2"},
                {"grant": "gr_2"},
                {"grant": ""},
            )
        ),
        *(
            (CALLER, n)
            for n in (
                "@up/m-incumbent",
                "up/m-literal",
                "@up/m-literal ",
                "@",
            )
        ),
    ],
)
async def test_a_grant_opens_nothing_to_another_and_no_other_target(
    tmp_path: Path,
    caller: AgentCaller,
    name: str,
) -> None:
    at = door(tmp_path, GRANT)
    status, _, body = await call(
        at,
        caller,
        ASK.replace(b"support", name.encode()),
    )
    assert (status, code(body)) == (404, "model_not_found")
    assert not at.transport.seen


async def test_a_grant_opens_nothing_from_the_second_on_in_which_it_expires(
    tmp_path: Path,
) -> None:
    """By the wall clock, in the same revision."""
    at = door(tmp_path, GRANT)
    at.clock.jump(3599)
    assert (await call(at))[0] == 200
    at.clock.jump(1)
    status, _, body = await call(at)
    assert (status, code(body)) == (404, "model_not_found")


async def test_a_grant_opens_nothing_once_a_revision_has_come_without_it(
    tmp_path: Path,
) -> None:
    at = door(tmp_path, GRANT)
    assert (await call(at))[0] == 200
    at.kept.put(replace(first(), etag="revoked"))
    assert at.holder.refresh()
    assert (await call(at))[0] == 404


async def test_a_client_can_neither_name_a_literal_target_nor_see_it(tmp_path: Path) -> None:
    at = door(tmp_path, GRANT)
    status, _, body = await at.call(CHAT, BODY)
    assert (status, code(body)) == (404, "model_not_found")
    _, _, listed = await at.call("/v1/models", method="GET")
    assert b"literal" not in listed
    assert (await at.call(f"/v1/models/{NAME}", method="GET"))[0] == 404
    task = (AUTH, (b"x-swapproof-task", NAME.encode()))
    assert (await at.call(CHAT, BODY, headers=task))[0] == 404


async def test_a_literal_target_that_may_not_see_the_data_gets_nothing(tmp_path: Path) -> None:
    classes: DataClasses = {
        "health": frozenset({"another"}),
        "plain": frozenset({"up"}),
    }
    health = replace(GRANT, data_class="health")
    plain = replace(GRANT, data_class="plain")
    barred = Door(tmp_path / "barred", first=first(health), classes=classes)
    status, _, _ = await call(barred)
    assert status >= 500
    assert not barred.transport.seen
    assert (await call(Door(tmp_path / "open", first=first(plain), classes=classes)))[0] == 200
    unnamed = Door(tmp_path / "unnamed", first=first(health), classes={})
    assert (await call(unnamed))[0] >= 500
    assert not unnamed.transport.seen


async def test_one_target_under_two_classes_of_data_is_two_routes(tmp_path: Path) -> None:
    """The class of one agent never stands for another's."""
    classes: DataClasses = {"health": frozenset({"another"})}
    other = replace(GRANT, id="gr_2", data_class="health")
    at = Door(tmp_path, first=first(GRANT, other), classes=classes)
    assert (await call(at))[0] == 200
    assert (await call(at, replace(CALLER, grant="gr_2")))[0] >= 500
    assert len(at.transport.seen) == 1


async def test_a_kill_switch_holds_for_literal_targets(tmp_path: Path) -> None:
    made = replace(first(GRANT), switches=(switch_of(f"target:{LITERAL.id}"),))
    status, headers, _ = await call(Door(tmp_path, first=made))
    assert status == 200
    assert headers[b"x-swapproof-switch"].startswith(b"sw_1; ")


async def test_a_literal_target_fails_over_to_nobody(tmp_path: Path) -> None:
    failing = ScriptedTurn(status=500, steps=(b"{}",))
    at = Door(tmp_path, lambda _: failing, first=first(GRANT))
    status, _, _ = await call(at)
    assert status >= 500
    assert {json.loads(request.body)["model"] for request in at.transport.seen} == {"m-literal"}


def test_a_grant_whose_target_cannot_be_asked_holds_up_no_revision() -> None:
    gone = replace(GRANT, id="gr_2", target="no-such-target")
    homeless = Target("down", "m")
    made = first(GRANT, gone, replace(GRANT, id="gr_3", target=homeless.id))
    table = replace(made.table, targets={**made.table.targets, homeless.id: homeless})

    compiled = served(replace(made, table=table))

    assert compiled.literals.keys() == {"gr_1"}
    assert compiled.routes.keys() == {"support", "other"}


@pytest.mark.req("C7", "F3")
@pytest.mark.parametrize("stakes", [Stakes.LOW, Stakes.HIGH])
async def test_the_target_that_auto_chose_is_asked_first_if_its_route_may_ask_it(
    tmp_path: Path, stakes: Stakes
) -> None:
    """Such a request is on no arm of a canary. A target of no chain is never asked."""
    made = snapshot("http://up", fallback=True)
    route = made.table.routes["support"]
    (fallback, *_) = route.fallbacks
    targets = {**made.table.targets, LITERAL.id: LITERAL}
    settings = replace(route.settings, stakes=stakes)
    routes = {
        **made.table.routes,
        "support": replace(route, settings=settings),
    }
    at = Door(
        tmp_path,
        first=replace(made, table=replace(made.table, targets=targets, routes=routes)),
    )
    for wanted in (fallback, LITERAL.id, route.incumbent, "t_none"):
        _, headers, _ = await call(
            at,
            replace(CALLER, grant="", target=wanted),
            ASK,
        )
        is_first = wanted == fallback and stakes is Stakes.LOW
        assert (headers[b"x-swapproof-arm"] == b"keep_warm") is is_first
        assert (headers[b"x-swapproof-target"] == targets[fallback].name.encode()) is is_first
        assert headers[b"x-swapproof-route"] == b"support"


@pytest.mark.req("C7")
async def test_no_target_is_asked_first_while_a_switch_rules(tmp_path: Path) -> None:
    made = snapshot("http://up", fallback=True)
    route = made.table.routes["support"]
    switch = switch_of(f"target:{route.incumbent}")
    at = Door(tmp_path, first=replace(made, switches=(switch,)))
    wanted = replace(CALLER, grant="", target=route.fallbacks[0])
    _, headers, _ = await call(
        at,
        wanted,
        ASK,
    )
    assert headers[b"x-swapproof-arm"] == b"incumbent"


@pytest.mark.parametrize("name", ["@up/m-literal", "@", "@@support"])
def test_no_route_is_called_like_a_literal_target(name: str) -> None:
    with pytest.raises(InputError, match="agents were granted"):
        apply_change(None, CreateRoute(name, LITERAL.id))
