"""Who is who by OpenID Connect: the server's word on role and subject, and no second person."""

from datetime import timedelta
from typing import Any

import pytest

from harness import config, package_data
from harness.control.operations import dashboard_sessions, single_sign_on
from harness.control.operations.dashboard_sessions import ActorSession
from harness.control.proposals import decisions
from harness.domain.errors import ConfigError, NotAllowed
from harness.domain.operations.access import Role
from harness.domain.operations.single_sign_on import read_identity
from harness.domain.settings import OidcSettings
from tests.integration.test_four_eyes import person, waiting
from tests.support.control.control_plane import SECRET, SmallInstallation

pytestmark = pytest.mark.req("F5")
LASTS = timedelta(hours=12)
ISSUER = "https://login.example.com"
OIDC = OidcSettings(
    ISSUER,
    "swapgate",
    "SWAPGATE_OIDC_SECRET",
    "https://swapgate.example.com",
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
    return single_sign_on.sign_in(world.context(), identity, secret=SECRET, lasts=LASTS)


def test_a_person_is_the_issuers_subject_with_the_highest_role_of_the_groups(
    world: SmallInstallation,
) -> None:
    said = claims(world)
    first, same = signed_in(world, said), signed_in(world, said)
    assert same == first
    assert (first.actor.name, first.actor.role) == ("dora@example.com", Role.APPROVER)
    assert first.actor.key is None

    world.clock.advance(60)
    renamed = claims(world, email="d.smith@example.com", groups="staff")
    later = signed_in(world, renamed)
    assert later.actor.principal == first.actor.principal
    assert (later.actor.name, later.actor.role) == ("dora@example.com", Role.VIEWER)
    assert later.session.id != first.session.id
    with world.store.read() as tx:
        events = [event for event in tx.audit.tail(9) if event.action == "dashboard.sign_in"]
    assert [(e.actor, e.details["called"], e.details["new"]) for e in events] == [
        ("dora@example.com", "d.smith@example.com", False),
        ("dora@example.com", "dora@example.com", True),
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://evil.example"}, "the sign-in comes from"),
        ({"sub": ""}, "no claim 'sub'"),
        ({"sub": 7}, "no claim 'sub'"),
        ({"email": None}, "no claim 'email'"),
        ({"email_verified": False}, "has not verified the address"),
        ({"email_verified": "false"}, "has not verified the address"),
        ({"email": "Swapgate"}, "what no person did"),
        ({"email": "do\u200bra"}, "nobody can act under this name"),
        ({"groups": ["golf"]}, "in none of the groups"),
        ({"groups": {"leads": True}}, "in none of the groups"),
        ({"groups": [{"name": "leads"}]}, "in none of the groups"),
        ({"groups": None}, "in none of the groups"),
        ({"iat": "now"}, "does not say when"),
        ({"iat": True}, "does not say when"),
    ],
)
def test_what_does_not_say_who_it_is_signs_nobody_in(
    world: SmallInstallation, changes: dict[str, object], why: str
) -> None:
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
    with pytest.raises(NotAllowed, match="Your session is over"):
        signed_in(world, again)
    with pytest.raises(NotAllowed, match="Your session is over"):
        signed_in(world, claims(world, iat=world.clock.now().timestamp() + 3600))


def test_nobody_is_two_people_by_key_and_by_single_sign_on(world: SmallInstallation) -> None:
    """Who has a key under a name signs in as nobody else of that name, and the other way."""
    made = waiting(world, person(world, "Dora@Example.com", Role.ADMIN))
    with pytest.raises(NotAllowed, match="is somebody's name here already"):
        signed_in(world, claims(world))

    kim = signed_in(world, claims(world, sub="u-2", email="kim@example.com")).actor
    decisions.approve_proposal(world.context(), kim, made.id)
    with world.store.read() as tx:
        [approval] = tx.approvals.for_proposal(made.id)
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


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("issuer", "http://login.example.com", "only loopback goes by http"),
        ("public_url", "https://user@swapgate.example.com", "is no address"),
        ("public_url", "https://swapgate.example.com/ui", "has a path"),
        ("client_secret_env", "s3cret!", "no name of an environment variable"),
        ("roles", "{}", "nobody could sign in"),
        ("scope", "email groups", "lacks `openid`"),
        ("roles", "{leads: aprover}", "did you mean 'approver'"),
    ],
)
def test_a_section_that_signs_nobody_in_is_refused_with_its_place(
    key: str, value: str, why: str, tmp_path: Any
) -> None:
    entries = {
        "issuer": ISSUER,
        "client_id": "swapgate",
        "client_secret_env": "SWAPGATE_OIDC_SECRET",
        "public_url": "https://swapgate.example.com",
        "roles": "{leads: approver}",
    } | {key: value}
    file = tmp_path / "swapgate.yaml"
    lines = "".join(f"    {name}: {text}\n" for name, text in entries.items())
    file.write_text(f"ui:\n  oidc:\n{lines}", encoding="utf-8")

    with pytest.raises(ConfigError, match=f"ui.oidc.{key}.*{why}"):
        config.load_settings(file, {}, defaults=package_data.path("config/default.yaml"))
