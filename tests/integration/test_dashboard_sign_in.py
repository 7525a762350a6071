import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from harness.frame.errors import InputError, NotAllowed, NotFound
from harness.frame.people.access import (
    LINK_LASTS,
    OPERATOR,
    Actor,
    Role,
    key_hash,
)
from harness.frame.people.records import dashboard_session
from harness.frame.signing.audit_log import AuditLog
from harness.operations import dashboard_sessions, keys
from harness.proposals import decisions
from tests.integration.test_four_eyes import waiting
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.store.raw_rows import REFUSED
from tests.support.store.tampering import insert, owned, row, written

pytestmark = pytest.mark.req("F5")
LASTS = timedelta(hours=12)


def link_for(
    world: SmallInstallation,
    maker: Actor,
    key: str | None = None,
) -> str:
    return dashboard_sessions.create_link(world.context(), maker, key, secret=SECRET)[1]


def opened(world: SmallInstallation, link: str) -> str:
    return dashboard_sessions.open_link(
        world.context(),
        link,
        secret=SECRET,
        lasts=LASTS,
    )[1]


def acting(world: SmallInstallation, cookie: str) -> Actor:
    return dashboard_sessions.resume(world.context(), cookie, secret=SECRET).actor


def signed_out(world: SmallInstallation, cookie: str) -> None:
    ctx = world.context()
    dashboard_sessions.end(ctx, dashboard_sessions.resume(ctx, cookie, secret=SECRET))


def test_a_link_signs_in_once_and_as_whoever_it_was_made_for(world: SmallInstallation) -> None:
    ben = world.person("ben", Role.APPROVER)
    link = link_for(world, ben)

    shown = dashboard_sessions.preview_link(world.context(), link, secret=SECRET)
    cookie = opened(world, link)

    assert shown.actor == acting(world, cookie) == ben
    assert acting(world, opened(world, link_for(world, OPERATOR))) == OPERATOR
    with world.store.read() as tx:
        events = [(e.action, e.actor, e.key) for e in AuditLog(tx).tail(4)]
    assert events == [
        ("dashboard.sign_in", "local", None),
        ("dashboard.link", "local", None),
        ("dashboard.sign_in", "ben", ben.key),
        ("dashboard.link", "ben", ben.key),
    ]


def test_a_link_that_comes_twice_ends_the_session_that_it_opened(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    link = link_for(world, world.person("ben", Role.APPROVER))
    cookie = opened(world, link)
    # In the browser that used it, it is only old.
    with pytest.raises(NotAllowed, match=r"was used at .* and works only once"):
        dashboard_sessions.preview_link(
            ctx,
            link,
            secret=SECRET,
            former=cookie,
        )
    assert acting(world, cookie).name == "ben"

    with pytest.raises(NotAllowed, match="another person may have it"):
        dashboard_sessions.preview_link(ctx, link, secret=SECRET)

    with pytest.raises(NotAllowed, match="You signed out"):
        acting(world, cookie)
    with pytest.raises(NotAllowed, match="works only once"):
        opened(world, link)
    with world.store.read() as tx:
        assert AuditLog(tx).tail(1)[0].action == "dashboard.link_replayed"


@pytest.mark.both_databases
def test_of_two_processes_that_open_a_link_at_once_one_gets_in_and_is_put_out(
    world: SmallInstallation,
) -> None:
    link = link_for(world, world.person("ben", Role.APPROVER))
    together = threading.Barrier(2)

    def try_link(_place: int) -> str | NotAllowed:
        together.wait()
        try:
            return opened(world, link)
        except NotAllowed as error:
            return error

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(try_link, range(2)))

    [cookie] = [answer for answer in answers if isinstance(answer, str)]
    [refusal] = [answer for answer in answers if isinstance(answer, NotAllowed)]
    assert "another person may have it" in str(refusal)
    with pytest.raises(NotAllowed, match="You signed out"):
        acting(world, cookie)


def test_a_browser_that_was_another_before_is_noted_in_the_audit_log(
    world: SmallInstallation,
) -> None:
    ann = world.person("ann", Role.PROPOSER)
    ben = world.person("ben", Role.APPROVER)
    former = opened(world, link_for(world, ann))

    cookie = dashboard_sessions.open_link(
        world.context(),
        link_for(world, ben),
        secret=SECRET,
        lasts=LASTS,
        former=former,
    )[1]

    assert acting(world, cookie) == ben
    assert cookie != former
    with pytest.raises(NotAllowed, match="You signed out"):
        acting(world, former)
    with world.store.read() as tx:
        begun = AuditLog(tx).tail(1)[0]
    assert (begun.actor, begun.details["instead_of"]) == (
        "ben",
        ann.principal,
    )


def test_a_link_to_anothers_key_ends_with_the_key_that_made_it(
    world: SmallInstallation,
) -> None:
    """An admin who leaves takes no link along."""
    ann = world.person("ann", Role.ADMIN)
    ben = keys.create_key(
        world.context(),
        ann,
        "ben",
        secret=SECRET,
        role=Role.APPROVER,
    )[0]
    link = link_for(world, ann, ben.id)
    keys.revoke_key(world.context(), OPERATOR, str(ann.key))

    with pytest.raises(NotAllowed, match="unknown or revoked"):
        dashboard_sessions.preview_link(world.context(), link, secret=SECRET)
    with pytest.raises(NotAllowed, match="unknown or revoked"):
        opened(world, link)


def test_a_link_that_nobody_used_in_time_is_over(world: SmallInstallation) -> None:
    link = link_for(world, OPERATOR)
    world.clock.advance(LINK_LASTS.total_seconds())

    with pytest.raises(NotAllowed, match="this link has expired"):
        opened(world, link)
    with pytest.raises(NotAllowed, match="not from this installation"):
        opened(world, "sg-link-guessed")
    with pytest.raises(InputError, match="between a minute and a day"):
        dashboard_sessions.create_link(
            world.context(),
            OPERATOR,
            secret=SECRET,
            lasts=timedelta(days=2),
        )


def test_a_session_ends_by_its_time_by_a_sign_out_and_with_its_key(
    world: SmallInstallation,
) -> None:
    ben = world.person("ben", Role.APPROVER)
    first, second, third = (opened(world, link_for(world, ben)) for _ in range(3))
    of_third = dashboard_sessions.resume(world.context(), third, secret=SECRET)

    signed_out(world, first)
    with pytest.raises(NotAllowed, match="You signed out"):
        acting(world, first)
    assert acting(world, second) == ben

    keys.revoke_key(world.context(), OPERATOR, ben.key or "")
    with pytest.raises(NotAllowed, match="revoked"):
        acting(world, second)
    dashboard_sessions.end(world.context(), of_third)

    of_operator = opened(world, link_for(world, OPERATOR))
    world.clock.advance(LASTS.total_seconds())
    with pytest.raises(NotAllowed, match="Your session has expired"):
        acting(world, of_operator)


def test_a_management_key_opens_a_session_and_a_data_key_none(world: SmallInstallation) -> None:
    ctx = world.context()
    _, text = keys.create_key(
        ctx,
        OPERATOR,
        "ben",
        secret=SECRET,
        role=Role.PROPOSER,
    )
    _, data = keys.create_key(
        ctx,
        OPERATOR,
        "client",
        secret=SECRET,
    )

    signed_in, cookie = dashboard_sessions.open_with_key(
        ctx,
        text,
        secret=SECRET,
        lasts=LASTS,
    )

    assert signed_in.actor == acting(world, cookie)
    assert (signed_in.actor.name, signed_in.actor.role) == (
        "ben",
        Role.PROPOSER,
    )
    for refused in (data, text[:-1], cookie, ""):
        with pytest.raises(NotAllowed):
            dashboard_sessions.open_with_key(
                ctx,
                refused,
                secret=SECRET,
                lasts=LASTS,
            )
    for refused in (text, data, ""):
        with pytest.raises(NotAllowed, match="not signed in"):
            acting(world, refused)


def test_nobody_prints_a_link_for_a_key_that_he_had_no_hand_in(
    world: SmallInstallation,
) -> None:
    ann = world.person("ann", Role.ADMIN)
    ben = world.person("ben", Role.APPROVER)

    with pytest.raises(NotAllowed, match="nor took part in creating it"):
        link_for(world, ann, ben.key)
    with pytest.raises(NotFound, match="key list"):
        link_for(world, ann, "key_none")
    assert acting(world, opened(world, link_for(world, OPERATOR, ben.key))) == ben


def test_a_link_makes_no_second_person_of_a_proposer(world: SmallInstallation) -> None:
    ann = world.person("ann", Role.ADMIN)
    made = waiting(world, ann)
    puppet = world.person("puppet", Role.APPROVER, by=ann)

    as_puppet = acting(world, opened(world, link_for(world, ann, puppet.key)))
    as_herself = acting(world, opened(world, link_for(world, ann)))

    for actor, why in (
        (as_puppet, "took part in creating"),
        (as_herself, "cannot approve"),
    ):
        with pytest.raises(NotAllowed, match=why):
            decisions.approve_proposal(world.context(), actor, made.id)


def test_neither_link_nor_cookie_is_stored_or_logged(world: SmallInstallation) -> None:
    link = link_for(world, OPERATOR)
    cookie = opened(world, link)

    with written(world.store) as db:
        stored = [repr(row) for row in db.execute(sa.select(dashboard_session))]
    with world.store.read() as tx:
        logged = [repr(event) for event in AuditLog(tx).all()]
    assert stored
    for text in (*stored, *logged):
        assert link not in text
        assert cookie not in text


@pytest.mark.parametrize("forged", [True, False])
def test_nobody_signs_in_by_sql(world: SmallInstallation, forged: bool) -> None:  # noqa: FBT001 - a case
    """A row of one's own, or another's session that goes on as the operator."""
    ctx = world.context()
    cookie = opened(world, link_for(world, OPERATOR))
    mine = "sg-session-mine"
    with owned(world.store) as db:
        if forged:
            values = row(db, "dashboard_session", cookie_hash=key_hash(cookie, SECRET))
            hashes = {"link_hash": None, "link_expires_at": None}
            own = {"id": "ds_mine", "cookie_hash": key_hash(mine, SECRET)}
            insert(db, "dashboard_session", values | hashes | own)
        else:
            late = ctx.clock.now() + timedelta(days=365)
            db.execute(sa.update(dashboard_session).values(expires_at=late))

    with pytest.raises(
        NotAllowed, match="Swapproof refuses every sign-in: the row dashboard_session"
    ):
        acting(world, mine if forged else cookie)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"principal": "local", "key": None},
            "the principal and the link of a session",
        ),
        (
            {"link_expires_at": datetime(2030, 1, 1, tzinfo=UTC)},
            "the principal and the link of a session",
        ),
        ({"cookie_hash": "mine"}, "a link is used once"),
        ({"ended_at": None}, "an ended session stays ended"),
    ],
)
def test_the_database_refuses_to_change_a_session(
    world: SmallInstallation,
    changes: dict[str, object],
    why: str,
) -> None:
    cookie = opened(world, link_for(world, world.person("ben", Role.APPROVER)))
    signed_out(world, cookie)

    with pytest.raises(REFUSED, match=why), written(world.store) as db:
        db.execute(sa.update(dashboard_session).values(changes))
