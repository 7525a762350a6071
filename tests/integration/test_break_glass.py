"""A target serves without proof only by the word of two people, for a limited time, and loudly;
at its end the former incumbent returns. Attacked by one person with two keys, by linked people,
by services, by raw SQL, by two processes at once, and by time.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from harness.canary import operations, status
from harness.canary.canary_state import describe_change
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import (
    Conflict,
    InputError,
    NotAllowed,
    ProofRefused,
    RouteBusy,
    SwapproofError,
)
from harness.frame.pagination import PageRequest
from harness.frame.people.access import OPERATOR, SYSTEM, Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.interfaces.cli.operations.status import next_command
from harness.operations import (
    alert_delivery,
    control_jobs,
    keys,
    queries,
    route_queries,
)
from harness.operations.route_status import RouteState, describe_needs
from harness.proposals import break_glass
from harness.proposals.report import comparison
from harness.providers.force import Force, ForceKind, SwitchSource
from harness.providers.models.catalogue import CatalogueEntry
from harness.providers.records import Providers
from harness.providers.registry import registered_providers, targets
from harness.routing.control import freezes, routes
from harness.routing.control.freezes import SwitchRequest
from harness.routing.evidence import BreakGlass
from harness.routing.records.evidence import Waivers
from harness.routing.records.interventions import BreakGlasses
from harness.routing.records.routes import Routing
from harness.routing.route_settings import RouteSettings
from router.snapshot.compiler import compile_snapshot
from tests.support.control.control_plane import SmallInstallation
from tests.support.providers.scripted_probe import FixedCatalogue
from tests.support.store.raw_rows import (
    AT,
    NEXT,
    REFUSED,
    Database,
    Row,
    prepared,
)
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("G2", "F1", "F5")
HOUR = timedelta(hours=1)
FREEZE = Force(ForceKind.FREEZE, "")
URGENT = "the vendor switches the old model off tonight"


def ask(
    world: SmallInstallation,
    actor: Actor,
    lasts: timedelta = HOUR,
    **also: Any,
) -> BreakGlass:
    wanted = {"reason": URGENT, "lasts": lasts, **also}
    return break_glass.propose_break_glass(
        world.context(), actor, "chat", "sim/worse", **wanted
    )


def in_force(world: SmallInstallation, lasts: timedelta = HOUR) -> BreakGlass:
    asked = ask(world, world.person("Ada", Role.APPROVER), lasts)
    return break_glass.confirm_break_glass(world.context(), world.person("Bo"), asked.id)


def changes(world: SmallInstallation) -> list[str]:
    return [
        describe_change(record)
        for record in queries.list_route_versions(world.context(), "chat")
    ]


def open_alerts(world: SmallInstallation) -> list[str]:
    with world.store.read() as tx:
        found = Alerts(tx).list()
    return [a.title for a in found if a.kind is AlertKind.BREAK_GLASS and a.open]


@pytest.mark.both_databases
def test_an_emergency_that_is_taken_from_the_routes_row_stands_on_the_first_page_as_forged(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    for name in ("a", "b"):
        routes.create_route(ctx, SYSTEM, name, "sim/base", settings=RouteSettings())
    in_force(world)
    first = route_queries.load_page(ctx, PageRequest(1))
    assert [status.route.name for status in first] == ["chat"]

    with owned(world.store) as db:
        db.execute(sa.text("UPDATE route_version SET break_glass = NULL WHERE route = 'chat'"))

    first = route_queries.load_page(ctx, PageRequest(1))
    assert [fault.key[0] for fault in first.invalid] == ["chat"]
    assert (list(first), first.total) == ([], 3)


@pytest.mark.spine
@pytest.mark.both_databases
def test_two_people_let_a_target_serve_loudly_and_the_former_one_returns_at_the_expiry(
    world: SmallInstallation,
) -> None:
    made = in_force(world)
    assert world.serving() == "worse"
    assert world.route().break_glass == made.id
    with world.store.read() as tx:
        evidence = Routing(tx).evidence("chat")
        (waiver,) = Waivers(tx).list(route="chat")
        actions = [
            event.action
            for event in AuditLog(tx).for_subject("route chat", since=made.created_at, limit=9)
        ]
    assert evidence is not None
    assert (evidence.incumbent.kind, evidence.incumbent.proof) == (
        "waiver",
        waiver.id,
    )
    assert (waiver.author, waiver.expires_at) == (
        "Ada and Bo",
        made.expires_at,
    )
    assert {"break_glass.propose", "break_glass.confirm"} <= set(actions)
    ((heading, text),) = break_glass.list_notices(world.context())
    assert heading.startswith("Break-glass: route chat is served without proof until")
    assert "requested by Ada, confirmed by Bo" in text
    assert open_alerts(world)[0].startswith("route chat is served without proof until")
    with world.store.read() as tx:
        text = Alerts(tx).list()[0].text
    assert re.search(r"confirmed by Bo\)\. The key key_\w+ is newer than 7 days\.", text)
    snapshot = world.store.snapshot()
    headers = compile_snapshot(snapshot).routes["chat"].headers
    named = (b"x-swapproof-break-glass", made.id.encode())
    assert all(named in of_arm for of_arm in headers.values())

    status = route_queries.load_status(world.context(), "chat")
    assert (status.state_text, status.urgency(world.clock.now())) == (
        "served without proof",
        1,
    )
    assert made.id in status.reason
    headline = describe_needs([status], 1, world.clock.now())
    assert headline == "chat: served without proof"
    assert next_command(status) == "swapproof route break-glass list"

    with pytest.raises(RouteBusy, match="so it cannot be compared"):
        world.propose("sim/better")
    world.clock.advance(3599)
    world.run_once()
    assert world.serving() == "worse"
    world.clock.advance(2)
    world.run_once()
    assert world.serving() == "base"
    assert world.route().break_glass is None
    assert open_alerts(world) == []
    assert route_queries.load_status(world.context(), "chat").state is RouteState.STEADY
    assert changes(world) == [
        "break-glass over: the former incumbent is back",
        "served without proof from here",
        "route created",
    ]
    assert break_glass.list_notices(world.context()) == []
    # What served by a waiver does not come back by having served.
    with pytest.raises(ProofRefused):
        operations.roll_back(
            world.context(),
            OPERATOR,
            "chat",
            to_version=2,
            reason="again",
        )


def test_a_candidate_promoted_before_it_was_not_rolled_back_and_says_who_serves(
    world: SmallInstallation,
) -> None:
    proposal = world.promoted()
    made = in_force(world)

    assert status.explain_canary(world.context(), "chat").status.rollback is None
    step = comparison.load_comparison(world.context(), proposal.id).next_step
    assert step == (
        "none; the candidate does not serve now: another model serves during "
        f"break-glass {made.id}."
    )
    break_glass.end_break_glass(world.context(), OPERATOR, made.id, reason="over")
    again = comparison.load_comparison(world.context(), proposal.id).next_step
    assert "the candidate serves the whole route" in again


def test_a_rollback_beneath_it_takes_the_promotion_before_it_back(
    world: SmallInstallation,
) -> None:
    proposal = world.promoted()
    in_force(world)
    operations.roll_back(
        world.context(),
        OPERATOR,
        "chat",
        to_version=1,
        reason="both are worse",
    )

    rollback = status.explain_canary(world.context(), "chat").status.rollback
    assert rollback is not None
    assert rollback.reason == "both are worse"
    step = comparison.load_comparison(world.context(), proposal.id).next_step
    assert "does not serve now: promotion rolled back by " in step


def test_a_candidate_whose_place_another_took_does_not_serve(world: SmallInstallation) -> None:
    first = world.promoted("sim/good")
    _ = world.promoted("sim/better")
    assert world.serving() == "better"
    step = comparison.load_comparison(world.context(), first.id).next_step
    assert step == "none; the candidate does not serve now: another model took its place."


def test_a_rollback_whose_reason_names_a_break_glass_is_still_one_by_hand(
    world: SmallInstallation,
) -> None:
    ada = world.person("Ada", Role.APPROVER)
    bo = world.person("Bo")
    for reason in (
        "break-glass was not needed",
        "break-glass {}: not needed",
    ):
        asked = ask(world, ada)
        made = break_glass.confirm_break_glass(world.context(), bo, asked.id)
        operations.roll_back(world.context(), OPERATOR, "chat", reason=reason.format(made.id))
        assert changes(world)[0] == "promotion rolled back"
        world.run_once()
        assert changes(world)[0] == "promotion rolled back"
    last = queries.list_route_versions(world.context(), "chat")[0]
    assert last.reason == f"break-glass {made.id}: not needed"
    with world.store.read() as tx:
        assert BreakGlasses(tx).get(made.id).ended_at is not None
    assert open_alerts(world) == []


@pytest.mark.spine
@pytest.mark.both_databases
def test_one_person_in_two_guises_and_a_service_confirm_nothing(
    world: SmallInstallation,
) -> None:
    ada = world.person("Ada")
    asked = ask(world, ada)
    ctx = world.context()
    second_key = world.person("phone", principal="Ada")
    made_by_ada = world.person("Eve", by=ada)
    service = world.person("ci", service=True)
    approver = world.person("Cy", Role.APPROVER)
    for who in (ada, second_key, made_by_ada, service, approver, SYSTEM):
        with pytest.raises(NotAllowed):
            break_glass.confirm_break_glass(ctx, who, asked.id)
    with pytest.raises(NotAllowed, match="and a service cannot"):
        ask(world, service)
    alias = world.person("Ada at home")
    keys.link_people(ctx, OPERATOR, "Ada at home", "Ada", "one woman")
    with pytest.raises(NotAllowed, match="one person"):
        break_glass.confirm_break_glass(ctx, alias, asked.id)
    assert world.serving() == "base"
    break_glass.end_break_glass(ctx, ada, asked.id, reason="another asks")
    again = r"end it, let somebody ask for it .* and confirm it"
    with pytest.raises(NotAllowed, match=again):
        break_glass.confirm_break_glass(ctx, OPERATOR, ask(world, OPERATOR).id)


def test_it_ends_when_its_two_people_are_declared_to_be_one_or_a_key_is_revoked(
    world: SmallInstallation,
) -> None:
    in_force(world)
    keys.link_people(world.context(), OPERATOR, "Bo", "Ada", "one person, as we know now")
    world.run_once()
    assert world.serving() == "base"

    asked = ask(world, world.person("Cy", Role.APPROVER))
    dora = world.person("Dora")
    break_glass.confirm_break_glass(world.context(), dora, asked.id)
    keys.revoke_key(world.context(), OPERATOR, str(dora.key))
    world.run_once()
    assert world.serving() == "base"


def test_without_reason_expiry_or_room_nobody_asks_for_it(world: SmallInstallation) -> None:
    ada = world.person("Ada", Role.APPROVER)
    ctx = world.context()
    for lasts in (timedelta(0), timedelta(days=8)):
        with pytest.raises(InputError, match="up to 7 days"):
            ask(world, ada, lasts)
    with pytest.raises(InputError, match="reason"):
        ask(world, ada, reason=" ")
    with pytest.raises(InputError, match="serves route 'chat' already"):
        break_glass.propose_break_glass(ctx, ada, "chat", "sim/base", reason=URGENT, lasts=HOUR)
    world.observe_only = True
    with pytest.raises(Conflict, match="this installation only observes"):
        ask(world, ada, through_freeze=True)
    world.observe_only = False
    asked = ask(world, ada)
    with pytest.raises(RouteBusy, match="waits for a second person"):
        ask(world, ada)
    world.clock.advance(3600)
    with pytest.raises(Conflict, match="waited too long"):
        break_glass.confirm_break_glass(ctx, world.person("Bo"), asked.id)
    world.run_once()
    with world.store.read() as tx:
        assert (
            BreakGlasses(tx).get(asked.id).ended_because
            == "no second person confirmed it in time"
        )


def test_a_freeze_holds_it_back_unless_both_people_saw_the_word(
    world: SmallInstallation,
) -> None:
    ada = world.person("Ada", Role.APPROVER)
    bo = world.person("Bo")
    ctx = world.context()
    asked = ask(world, ada)
    freeze = SwitchRequest(FREEZE, "the release", "chat", 5 * HOUR)
    freezes.set_switch(ctx, OPERATOR, freeze, source=SwitchSource.CLI)
    with pytest.raises(Conflict, match="is frozen until"):
        break_glass.confirm_break_glass(ctx, bo, asked.id)
    break_glass.end_break_glass(ctx, ada, asked.id, reason="the other way")
    with pytest.raises(Conflict, match="--through-freeze"):
        ask(world, ada)
    through = ask(world, ada, through_freeze=True)
    break_glass.confirm_break_glass(ctx, bo, through.id)
    assert world.serving() == "worse"
    # Going back is never held back by a freeze.
    world.clock.advance(3601)
    world.run_once()
    assert world.serving() == "base"


def test_a_canary_comes_first_and_a_proposal_under_way_loses_its_base(
    world: SmallInstallation,
) -> None:
    world.in_canary()
    with pytest.raises(RouteBusy, match="swapproof canary abort chat"):
        ask(world, world.person("Ada"))


def test_where_the_former_incumbent_cannot_return_the_alert_stays_until_it_can(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    with world.store.read() as tx:
        provider = Providers(tx).all()["sim"]
    targets.put_provider(ctx, OPERATOR, replace(provider, name="spare"))
    asked = break_glass.propose_break_glass(
        ctx, world.person("Ada"), "chat", "spare/worse", reason=URGENT, lasts=HOUR
    )
    break_glass.confirm_break_glass(ctx, world.person("Bo"), asked.id)
    registered_providers.remove_provider(ctx, OPERATOR, "sim")
    world.clock.advance(3601)
    world.run_once(turns=2)
    assert world.serving() == "worse"
    with world.store.read() as tx:
        (alert,) = [a for a in Alerts(tx).list() if a.kind is AlertKind.BREAK_GLASS]
    assert alert.open
    assert "the provider 'sim' of sim/base was removed" in alert.text
    ((heading, text),) = break_glass.list_notices(ctx)
    assert heading.endswith("is served without proof, and no model can take over.")
    assert text.endswith("the provider 'sim' of sim/base was removed.")
    with pytest.raises(ProofRefused, match="cannot return"):
        break_glass.end_break_glass(ctx, OPERATOR, asked.id, reason="now")

    targets.put_provider(ctx, OPERATOR, provider)
    world.run_once()
    assert world.serving() == "base"
    assert open_alerts(world) == []


def test_a_former_incumbent_that_its_vendor_has_ended_does_not_return(
    world: SmallInstallation,
) -> None:
    made = in_force(world, timedelta(days=2))
    with world.store.read() as tx:
        kind = Providers(tx).all()["sim"].kind
    tomorrow = world.clock.now().date() + timedelta(days=1)
    known = FixedCatalogue(CatalogueEntry(kind, "base", end_date=tomorrow))
    ctx = replace(world.context(), models=known)
    assert break_glass.run_once(ctx) == []
    world.clock.advance(2 * 86_400 + 1)
    assert break_glass.run_once(ctx) == []
    assert world.serving() == "worse"
    assert open_alerts(world) == [
        "route chat is served without proof, and no model can take over"
    ]
    with pytest.raises(ProofRefused, match=f"sim/base ended on {tomorrow}"):
        break_glass.end_break_glass(ctx, OPERATOR, made.id, reason="now")
    # A person who knows better goes back by hand.
    with pytest.raises(ProofRefused, match=r"it ended on .* `--force` restores it anyway"):
        operations.roll_back(ctx, OPERATOR, "chat", reason="it still answers")
    operations.roll_back(
        ctx,
        OPERATOR,
        "chat",
        reason="it still answers",
        force=True,
    )
    break_glass.run_once(ctx)
    assert world.serving() == "base"
    assert open_alerts(world) == []


@pytest.mark.both_databases
def test_of_two_confirmations_at_once_one_counts_and_the_expiry_needs_no_running_control(
    world: SmallInstallation,
) -> None:
    asked = ask(world, world.person("Ada", Role.APPROVER))
    ctx = world.context()
    break_glass.confirm_break_glass(ctx, world.person("Bo"), asked.id)
    with pytest.raises(SwapproofError):
        break_glass.confirm_break_glass(ctx, world.person("Cy"), asked.id)
    version = world.route().version
    # Control was down for a day; then the clock was set back before the next turn.
    world.clock.advance(86_400)
    world.run_once()
    assert (world.serving(), world.route().version) == ("base", version + 1)
    world.clock.advance(-86_400)
    control_jobs.run_once(ctx)
    assert (world.serving(), world.route().version) == ("base", version + 1)


# What a person with a shell would write.
ASKED: Row = {
    "id": "bg_1",
    "route": "b",
    "incumbent": "t_old",
    "target": "t_third",
    "reason": "an emergency",
    "through_freeze": False,
    "proposer": "ada",
    "proposer_principal": "pr_ada",
    "created_at": AT,
    "confirm_by": AT + 3_600_000_000,
    "expires_at": AT + 7_200_000_000,
    "ended_because": "",
}
WORD = {
    "confirmer": "bo",
    "confirmer_principal": "pr_bo",
    "confirmed_at": AT + 1,
    "waiver": "w_1",
}
SERVED = NEXT | {
    "route": "b",
    "kind": "restore",
    "incumbent": "t_third",
    "incumbent_evidence": "e_w",
    "prev_incumbent": "t_old",
    "break_glass": "bg_1",
    "at": AT + 2,
}


def says(db: Database, **changes: object) -> None:
    values = WORD | changes
    columns = ", ".join(f"{name} = :{name}" for name in values)
    db.run(f"UPDATE break_glass SET {columns} WHERE id = 'bg_1'", values)  # noqa: S608


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Ada, Bo, whom an admin declared to be Ada's second name, and a service; a waiver."""
    with prepared(database_url) as db:
        for name, kind in (
            ("ada", "person"),
            ("bo", "person"),
            ("ci", "service"),
        ):
            who = {
                "id": f"pr_{name}",
                "name": name,
                "folded": name,
                "created_at": AT,
            }
            db.insert("principal", who | {"kind": kind})
        waiver = {
            "id": "w_1",
            "route": "b",
            "target": "t_third",
            "author": "ada and bo",
        }
        db.insert(
            "waiver",
            waiver | {"reason": "r", "expires_at": ASKED["expires_at"]},
        )
        evidence = {
            "id": "e_w",
            "route": "b",
            "target": "t_third",
            "kind": "waiver",
        }
        db.insert("evidence", evidence | {"waiver_id": "w_1", "created_at": AT})
        yield db


@pytest.mark.both_databases
def test_raw_sql_confirms_nothing_alone_and_serves_nothing_that_two_have_not_confirmed(
    database: Database,
) -> None:
    db = database
    for change, message in (
        (WORD, "break_glass_asked"),
        ({"proposer_principal": "pr_ci"}, "four_eyes"),
        ({"proposer_principal": "nobody"}, "four_eyes"),
        ({"expires_at": AT + 8 * 86_400_000_000}, "break_glass_ends"),
    ):
        with pytest.raises(REFUSED, match=message):
            db.insert("break_glass", ASKED | change)
    db.insert("break_glass", ASKED)
    with pytest.raises(REFUSED, match=r"route_busy|ux_break_glass_open|UNIQUE"):
        db.insert("break_glass", ASKED | {"id": "bg_2"})
    for changes, message in (
        ({"confirmer_principal": "pr_ada"}, "four_eyes"),
        ({"confirmer_principal": "pr_ci"}, "four_eyes"),
        ({"confirmed_at": ASKED["confirm_by"]}, "break_glass_late"),
        ({"waiver": "w_none"}, "waiver_missing"),
        ({"target": "t_new"}, "append_only"),
        ({"expires_at": AT + 9_000_000_000}, "append_only"),
    ):
        with pytest.raises(REFUSED, match=message):
            says(db, **changes)
    link = {
        "id": "pl_1",
        "principal": "pr_bo",
        "number": 1,
        "person": "pr_ada",
    }
    made = {
        "reason": "one person",
        "created_at": AT,
        "created_by": "local",
    }
    db.insert("person_link", link | made)
    with pytest.raises(REFUSED, match="four_eyes"):
        says(db)
    db.insert(
        "person_link",
        link
        | made
        | {
            "id": "pl_2",
            "number": 2,
            "person": "pr_bo",
        },
    )

    with pytest.raises(REFUSED, match="break_glass_missing"):
        db.insert("route_version", SERVED)
    with pytest.raises(REFUSED, match=r"break_glass_named|never_incumbent"):
        db.insert("route_version", SERVED | {"break_glass": None})

    says(db)
    with pytest.raises(REFUSED, match="append_only"):
        says(db, confirmer="eve")
    late = SERVED | {"at": ASKED["expires_at"]}
    with pytest.raises(REFUSED, match="break_glass_missing"):
        db.insert("route_version", late)
    with pytest.raises(REFUSED, match="break_glass_missing"):
        db.insert("route_version", SERVED | {"at": AT})
    freeze: dict[str, object] = {
        "id": "sw_1",
        "kind": "freeze",
        "name": "",
        "source": "cli",
    }
    freeze |= {
        "reason": "r",
        "actor": "ada",
        "created_at": AT,
        "expires_at": AT + 5,
    }
    for changes, message in (
        ({"expires_at": AT}, "freeze_ends"),
        ({"starts_at": AT + 5}, "freeze_ends"),
        (
            {
                "kind": "provider",
                "name": "sim",
                "starts_at": AT + 1,
            },
            "only_freezes_wait",
        ),
    ):
        with pytest.raises(REFUSED, match=message):
            db.insert("switch", freeze | changes)
    db.insert("switch", freeze)
    with pytest.raises(REFUSED, match="frozen"):
        db.insert("route_version", SERVED)
    thawed = SERVED | {"at": AT + 6}
    db.insert("route_version", thawed)

    after = {
        "version": 3,
        "prev_version": 2,
        "revision": 4,
        "prev_incumbent": "t_third",
    }
    settings = thawed | after | {"kind": "settings"}
    with pytest.raises(REFUSED, match="break_glass_named"):
        db.insert("route_version", settings | {"break_glass": None})
    back = {
        "incumbent": "t_old",
        "incumbent_evidence": "e_b",
        "break_glass": None,
    }
    db.insert("route_version", thawed | after | back)
    again = {
        "version": 4,
        "prev_version": 3,
        "revision": 5,
        "prev_incumbent": "t_old",
    }
    for hidden in ("bg_1", None):
        with pytest.raises(REFUSED, match="break_glass"):
            db.insert("route_version", thawed | again | {"break_glass": hidden})
    for statement in (
        "DELETE FROM break_glass",
        "UPDATE break_glass SET reason = 'better'",
    ):
        with pytest.raises(REFUSED, match="append_only"):
            db.run(statement)


@pytest.mark.both_databases
def test_its_alert_ends_with_a_rollback_also_where_raw_sql_ended_it_before(
    world: SmallInstallation,
) -> None:
    glass = in_force(world)
    with owned(world.store) as db:
        ended = "UPDATE break_glass SET ended_at = created_at + 1, ended_because = 'over'"
        db.execute(sa.text(ended))
    world.run_once()
    alert_delivery.run_once(world.context())
    assert len(open_alerts(world)) == 1
    assert world.route().break_glass == glass.id

    operations.roll_back(
        world.context(),
        SYSTEM,
        "chat",
        to_version=1,
        reason="it was forged",
    )
    alert_delivery.run_once(world.context())

    assert world.serving() == "base"
    assert open_alerts(world) == []
