from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from harness.app.configuration import configuration
from harness.frame import package_data
from harness.frame.errors import (
    ConfigError,
    Conflict,
    InputError,
    NotAllowed,
    NotFound,
)
from harness.frame.people.access import LOCAL_PRINCIPAL, OPERATOR, Role
from harness.frame.people.records import person_link
from harness.frame.signing.audit_log import AuditLog
from harness.operations import dashboard_sessions, keys, single_sign_on
from harness.operations.dashboard_sessions import ActorSession
from harness.operations.queries import list_audit_events
from harness.operations.single_sign_on import read_identity
from harness.proposals import approvals, decisions
from harness.routing.proposal import ProposalPhase
from harness.routing.records.proposals import Approvals
from harness.routing.settings import OidcSettings
from tests.integration.test_four_eyes import waiting
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.store.raw_rows import REFUSED
from tests.support.store.tampering import insert, row, written

pytestmark = pytest.mark.req("F5")
LASTS = timedelta(hours=12)
ISSUER = "https://login.example.com"
OIDC = OidcSettings(
    ISSUER,
    "swapproof",
    "SWAPPROOF_OIDC_SECRET",
    "https://swapproof.example.com",
    {"staff": "viewer", "leads": "approver"},
)


def claims(world: SmallInstallation, **changes: object) -> dict[str, Any]:
    said = {
        "iss": ISSUER,
        "sub": "u-1",
        "email": "dora@example.com",
        "email_verified": True,
        "groups": ["staff", "leads", "golf"],
        "iat": world.clock.now().timestamp(),
    }
    return said | changes


def signed_in(world: SmallInstallation, said: dict[str, Any]) -> ActorSession:
    identity = read_identity(said, OIDC)
    return single_sign_on.sign_in(
        world.context(),
        identity,
        secret=SECRET,
        lasts=LASTS,
    )


def test_a_person_is_the_issuers_subject_with_the_highest_role_of_the_groups(
    world: SmallInstallation,
) -> None:
    said = claims(world)
    first = signed_in(world, said)
    same = signed_in(world, said)
    assert same == first
    assert (first.actor.name, first.actor.role) == (
        "dora@example.com",
        Role.APPROVER,
    )
    assert first.actor.key is None

    world.clock.advance(60)
    later = signed_in(world, claims(world, email="d.smith@example.com", groups="staff"))
    assert later.actor.principal == first.actor.principal
    assert (later.actor.name, later.actor.role) == (
        "dora@example.com",
        Role.VIEWER,
    )
    assert later.session.id != first.session.id
    with world.store.read() as tx:
        events = [
            event for event in AuditLog(tx).tail(9) if event.action == "dashboard.sign_in"
        ]
    assert [(e.actor, e.details["called"], e.details["new"]) for e in events] == [
        ("dora@example.com", "d.smith@example.com", False),
        ("dora@example.com", "dora@example.com", True),
    ]
    for reader, issuer in (
        (later.actor, "for admins"),
        (None, "for admins"),
        (OPERATOR, ISSUER),
    ):
        (newest, *_) = list_audit_events(world.context(), reader=reader)
        assert newest.details["issuer"] == issuer
        assert (newest.details["subject"] == "u-1") == (issuer == ISSUER)


NOBODY: tuple[tuple[dict[str, object], str], ...] = (
    ({"iss": "https://evil.example"}, "the sign-in comes from"),
    ({"sub": ""}, "no claim 'sub'"),
    ({"sub": 7}, "no claim 'sub'"),
    ({"email": None}, "no claim 'email'"),
    ({"email_verified": False}, "does not confirm that it verified"),
    ({"email_verified": "false"}, "does not confirm that it verified"),
    ({"email_verified": None}, "does not confirm that it verified"),
    ({"sub": "u\x00"}, "ASCII characters"),
    ({"sub": "\u202eu-1"}, "ASCII characters"),
    ({"sub": "u" * 10_000}, "ASCII characters"),
    ({"email": "x" * 10_000}, "the name of this sign-in is invalid"),
    (
        {"email": "\u202egro.elpmaxe@arod"},
        "the name of this sign-in is invalid",
    ),
    ({"email": "d\u043era@example.com"}, "mixes letters"),
    (
        {"email": "dora\ud800@example.com"},
        "the name of this sign-in is invalid",
    ),
    ({"email": "Swapproof"}, "for Swapproof itself"),
    ({"email": "do\u200bra"}, "the name of this sign-in is invalid"),
    ({"groups": ["golf"]}, "in none of the groups"),
    ({"groups": {"leads": True}}, "in none of the groups"),
    ({"groups": [{"name": "leads"}]}, "in none of the groups"),
    ({"groups": None}, "in none of the groups"),
    ({"iat": "now"}, "did not send the time"),
    ({"iat": True}, "did not send the time"),
    ({"iat": 1e300}, "did not send the time"),
    ({"iat": float("nan")}, "did not send the time"),
)


def test_what_does_not_say_who_it_is_signs_nobody_in(world: SmallInstallation) -> None:
    for changes, why in NOBODY:
        with pytest.raises(NotAllowed, match=why):
            signed_in(world, claims(world, **changes))


def test_a_sign_in_ends_by_a_sign_out_and_in_time_though_the_cookie_stays(
    world: SmallInstallation,
) -> None:
    said = claims(world)
    dashboard_sessions.end(world.context(), signed_in(world, said))
    with pytest.raises(NotAllowed, match="You signed out"):
        signed_in(world, said)

    world.clock.advance(1)
    again = claims(world)
    signed_in(world, again)
    world.clock.advance(LASTS.total_seconds())
    with pytest.raises(NotAllowed, match="Your session has expired"):
        signed_in(world, again)
    with pytest.raises(NotAllowed, match="Your session has expired"):
        signed_in(world, claims(world, iat=world.clock.now().timestamp() + 3600))


def test_nobody_is_two_people_by_key_and_by_single_sign_on(world: SmallInstallation) -> None:
    """Who has a key under a name signs in as nobody else of that name, and the other way."""
    made = waiting(world, world.person("Dora@Example.com", Role.ADMIN))
    with pytest.raises(NotAllowed, match="another principal has the name"):
        signed_in(world, claims(world))

    kim = signed_in(world, claims(world, sub="u-2", email="kim@example.com")).actor
    keys.separate_people(world.context(), OPERATOR, "kim@example.com", "we work side by side")
    decisions.approve_proposal(world.context(), kim, made.id)
    with world.store.read() as tx:
        [approval] = Approvals(tx).for_proposal(made.id)
    assert (approval.name, approval.principal, approval.key) == (
        "kim@example.com",
        kim.principal,
        None,
    )


def test_who_proposed_by_single_sign_on_cannot_approve_it(world: SmallInstallation) -> None:
    dora = signed_in(world, claims(world)).actor
    made = waiting(world, dora)
    world.clock.advance(60)
    again = signed_in(world, claims(world)).actor
    with pytest.raises(NotAllowed, match="another approver"):
        decisions.approve_proposal(world.context(), again, made.id)


@pytest.mark.both_databases
def test_who_has_a_key_and_single_sign_on_is_one_person_once_declared(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    ana = world.person("ana", Role.ADMIN)
    by_sign_on = signed_in(world, claims(world, email="ana@example.org")).actor
    made = waiting(world, ana)

    # Until somebody says who that is, nobody approves across the two kinds of sign-in.
    with pytest.raises(NotAllowed, match="no admin has declared who ana@"):
        decisions.approve_proposal(ctx, by_sign_on, made.id)
    # Nor by the word of one of the two, said with a key that goes back to her either.
    zoe = world.person("zoe", Role.ADMIN, by=ana)
    for mine in (ana, zoe):
        keys.separate_people(ctx, mine, "ana@example.org", "trust me")
        with pytest.raises(NotAllowed, match="ana helped to declare who ana@"):
            decisions.approve_proposal(ctx, by_sign_on, made.id)

    keys.link_people(ctx, OPERATOR, "ana@example.org", "ana", "she told me")
    with pytest.raises(NotAllowed, match="were declared to be one person"):
        decisions.approve_proposal(ctx, by_sign_on, made.id)
    puppet = world.person("puppet", Role.APPROVER, by=ana)
    decisions.cancel_proposal(ctx, ana, made.id)
    other = waiting(world, by_sign_on)
    for herself, why in (
        (ana, "one person"),
        (puppet, "took part in creating"),
    ):
        with pytest.raises(NotAllowed, match=why):
            decisions.approve_proposal(ctx, herself, other.id)
    decisions.approve_proposal(ctx, world.person("ben", Role.APPROVER), other.id)
    with world.store.read() as tx:
        declared = [e for e in AuditLog(tx).tail(99) if e.action.startswith("person.")]
    assert [(e.actor, e.action, e.details["called"]) for e in declared] == [
        ("local", "person.link", "ana"),
        ("zoe", "person.separate", "ana@example.org"),
        ("ana", "person.separate", "ana@example.org"),
    ]


def test_who_may_hold_a_services_key_decides_with_neither_until_an_admin_says_who_he_is(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    pipeline = world.person("pipeline", Role.APPROVER, service=True)
    dora = signed_in(world, claims(world)).actor
    made = waiting(world, dora)
    with pytest.raises(NotAllowed, match="no admin has declared who dora@"):
        decisions.approve_proposal(ctx, pipeline, made.id)
    keys.link_people(ctx, OPERATOR, "pipeline", "dora@example.com", "she has its key")
    with pytest.raises(NotAllowed, match="were declared to be one person"):
        decisions.approve_proposal(ctx, pipeline, made.id)

    keys.separate_people(ctx, OPERATOR, "pipeline", "no more: its key was made anew")
    keys.separate_people(ctx, OPERATOR, "dora@example.com", "has no key")
    decisions.approve_proposal(ctx, pipeline, made.id)
    with world.store.read() as tx:
        [approval] = Approvals(tx).for_proposal(made.id)
        remarks = approvals.list_key_remarks(tx, made, approval)
    assert any(
        "pipeline, which is a service: anybody with its key" in remark for remark in remarks
    )


def test_an_approver_who_is_declared_to_be_the_proposer_opens_no_canary(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    ana = world.person("ana", Role.ADMIN)
    by_sign_on = signed_in(world, claims(world, email="ana@example.org")).actor
    keys.separate_people(ctx, OPERATOR, "ana@example.org", "another Ana, it seemed")
    made = waiting(world, ana)
    decisions.approve_proposal(ctx, by_sign_on, made.id)
    keys.link_people(ctx, OPERATOR, "ana@example.org", "ana", "the same Ana")

    world.run_once()

    closed = world.get(made.id)
    assert closed.phase is ProposalPhase.REJECTED
    assert "has since declared" in closed.closed_because


@pytest.mark.both_databases
def test_the_database_itself_refuses_one_person_on_both_sides(world: SmallInstallation) -> None:
    ctx = world.context()
    ana = world.person("ana", Role.ADMIN)
    by_sign_on = signed_in(world, claims(world, email="ana@example.org")).actor
    keys.link_people(ctx, OPERATOR, "ana@example.org", "ana", "she told me")
    made = waiting(world, ana)
    approval: dict[str, object] = {
        "id": "a_ana",
        "proposal": made.id,
        "verdict": made.verdict,
        "kind": "canary",
        "principal": by_sign_on.principal,
        "name": by_sign_on.name,
        "at": world.clock.now(),
        "reason": "mine",
        "widened": {},
    }
    with (
        pytest.raises(REFUSED, match="the person behind the proposer"),
        written(world.store) as db,
    ):
        insert(db, "approval", approval)
    for change in ({"person": by_sign_on.principal}, {"reason": "other"}):
        with (
            pytest.raises(REFUSED, match="never changed"),
            written(world.store) as db,
        ):
            db.execute(sa.update(person_link).values(change))
    with (
        pytest.raises(REFUSED, match="never changed"),
        written(world.store) as db,
    ):
        db.execute(sa.delete(person_link))
    chain = {
        "id": "pl_2",
        "principal": ana.principal,
        "person": LOCAL_PRINCIPAL.id,
    }
    with (
        pytest.raises(REFUSED, match="other principals are declared"),
        written(world.store) as db,
    ):
        insert(db, "person_link", row(db, "person_link") | chain)


def test_only_an_admin_declares_who_somebody_is_and_never_in_a_chain(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    ana = world.person("ana", Role.APPROVER)
    ben = world.person("ben", Role.ADMIN)
    world.person("ana two", Role.VIEWER)
    with pytest.raises(NotAllowed, match="needs admin"):
        keys.link_people(ctx, ana, "ana two", "ana", "it is me")
    with pytest.raises(NotFound, match="no principal 'eve'"):
        keys.link_people(ctx, ben, "eve", "ana", "a guess")
    with pytest.raises(InputError, match="reason"):
        keys.link_people(ctx, ben, "ana two", "ana", " ")
    with pytest.raises(InputError, match="this machine's operator"):
        keys.link_people(ctx, ben, "local", "ana", "her machine")
    keys.link_people(ctx, ben, "ana two", "ana", "she told me")
    with pytest.raises(Conflict, match="other principals are already declared to be ana"):
        keys.link_people(ctx, ben, "ana", "ben", "no")
    with pytest.raises(Conflict, match="another principal"):
        keys.link_people(ctx, ben, "ben", "ana two", "no")
    shown = {
        view.name: (view.person, view.declared_by) for view in keys.list_people(ctx, OPERATOR)
    }
    assert shown["ana two"] == ("ana", "ben")
    assert shown["ana"] == ("", "")
    # Who is no admin reads of himself, under all of his names, and of nobody else.
    assert {view.name for view in keys.list_people(ctx, ana)} == {
        "ana",
        "ana two",
    }
    assert not keys.list_people(ctx, None)


@pytest.mark.both_databases
def test_an_admin_ends_anothers_session_by_key_and_by_single_sign_on(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    said = claims(world)
    dora = signed_in(world, said)
    ben = world.person("ben", Role.APPROVER)
    made = dashboard_sessions.create_link(ctx, ben, secret=SECRET)
    cookie = dashboard_sessions.open_link(
        ctx,
        made[1],
        secret=SECRET,
        lasts=LASTS,
    )[1]
    going_on = dashboard_sessions.list_open(ctx, OPERATOR)
    assert {(view.name, view.by) for view in going_on} == {
        ("dora@example.com", "oidc"),
        ("ben", "link"),
    }

    assert [view.name for view in dashboard_sessions.list_open(ctx, ben)] == ["ben"]
    assert not dashboard_sessions.list_open(ctx, None)
    with pytest.raises(NotAllowed, match="needs admin"):
        dashboard_sessions.end_session(ctx, ben, dora.session.id, "I say so")
    for view in going_on:
        dashboard_sessions.end_session(ctx, OPERATOR, view.id, "a lost laptop")
    with pytest.raises(NotAllowed, match="an admin ended your session"):
        signed_in(world, said)
    with pytest.raises(NotAllowed, match="an admin ended your session"):
        dashboard_sessions.resume(ctx, cookie, secret=SECRET)
    with pytest.raises(Conflict, match="has ended already"):
        dashboard_sessions.end_session(ctx, OPERATOR, dora.session.id, "again")
    assert not dashboard_sessions.list_open(ctx, OPERATOR)
    with world.store.read() as tx:
        event = AuditLog(tx).tail(1)[0]
    assert (event.action, event.details["reason"]) == (
        "dashboard.end",
        "a lost laptop",
    )


@pytest.mark.req("G3")
@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (
            "issuer",
            "http://login.example.com",
            "http is for loopback addresses only",
        ),
        (
            "public_url",
            "https://user@swapproof.example.com",
            "must be an address",
        ),
        (
            "public_url",
            "https://swapproof.example.com/ui",
            "must have no path",
        ),
        (
            "client_secret_env",
            "s3cret!",
            "the name of an environment variable",
        ),
        ("roles", "{}", "must name a group"),
        ("scope", "email groups", "must include `openid`"),
        ("roles", "{leads: aprover}", "did you mean 'approver'"),
    ],
)
def test_a_section_that_signs_nobody_in_is_refused_with_its_place(
    key: str,
    value: str,
    why: str,
    tmp_path: Any,
) -> None:
    entries = {
        "issuer": ISSUER,
        "client_id": "swapproof",
        "client_secret_env": "SWAPPROOF_OIDC_SECRET",
        "public_url": "https://swapproof.example.com",
        "roles": "{leads: approver}",
    } | {key: value}
    file = tmp_path / "swapproof.yaml"
    lines = "".join(f"    {name}: {text}\n" for name, text in entries.items())
    file.write_text(f"ui:\n  oidc:\n{lines}", encoding="utf-8")

    with pytest.raises(ConfigError, match=f"ui.oidc.{key}.*{why}"):
        configuration.load_settings(file, {}, defaults=package_data.path("config/default.yaml"))
