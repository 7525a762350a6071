"""A request with an `Idempotency-Key` is done once, whichever control process it is sent to."""

import copy
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.api.app import build_app
from harness.control.context import Context
from harness.control.operations import keys
from harness.control.operations.idempotency import Answer, do_once
from harness.control.privacy import housekeeping
from harness.domain.errors import Conflict, InputError, StaleWrite, StoreUnavailable
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.idempotent_request import LEASE, IdempotentRequest
from harness.runtime.encryption import FernetCipher, new_key
from harness.store.store import Store
from tests.support.control.control_plane import SECRET, SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.site.management_api import Door, error_of, installation
from tests.support.site.signing_keys import CONTROL

pytestmark = [pytest.mark.both_databases, pytest.mark.req("A7")]
ONCE = {"idempotency-key": "monday-1"}
BODY = {"name": "carl", "role": "admin"}
KEY = new_key()
CIPHER = FernetCipher(lambda: [KEY])


@pytest.fixture
def other(world: SmallInstallation, database_url: str, tmp_path: Path) -> Iterator[Door]:
    store = Store(database_url, secret=SECRET, clock=world.clock, signatures=CONTROL)
    second = SmallInstallation(tmp_path, store, clock=world.clock, chance=world.chance)
    with closing(store):
        door = copy.copy(Door(world))
        door.app = build_app(installation(second))
        yield door


@pytest.fixture
def ctx(world: SmallInstallation) -> Context:
    return world.context()


class Effect:
    """Makes a client's key at each call, within the context that it gets."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, ctx: Context) -> Answer:
        self.calls += 1
        keys.create_key(ctx, SYSTEM, f"{type(self).__name__} {self.calls}", secret=SECRET)
        return 201, f'{{"call":{self.calls}}}'


def made_keys(ctx: Context) -> int:
    with ctx.store.read() as tx:
        return [event.action for event in tx.audit.all()].count("key.create")


def once(
    ctx: Context, do: "Effect", owner: str = "a", content: str = "h"
) -> tuple[Answer, bool]:
    clock = ctx.clock
    assert isinstance(clock, ManualClock)
    request = IdempotentRequest("scope", "monday-1", content, owner, clock.now())
    return do_once(ctx, CIPHER, request, do, sleep=clock.advance)


def test_sent_to_another_control_process_it_has_one_effect_and_gets_the_same_answer(
    world: SmallInstallation, other: Door, database_url: str
) -> None:
    first = copy.copy(other)
    first.app = build_app(installation(world))
    made = first.send("POST", "/keys", json=BODY, headers=ONCE)
    count = made_keys(world.context())
    again = other.send("POST", "/keys", json=BODY, headers=ONCE)

    assert (again.status_code, again.content) == (201, made.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in made.headers
    refused = other.send("POST", "/keys", json={**BODY, "name": "dora"}, headers=ONCE)
    assert "another body" in error_of(refused, 422)["message"]
    assert made_keys(world.context()) == count
    engine = sa.create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as db:
        (row,) = db.execute(sa.text("SELECT * FROM idempotent_request")).all()
    engine.dispose()
    assert made.json()["text"] not in repr(row)
    assert BODY["name"] not in repr(row)


def test_of_many_at_once_one_acts_and_all_get_its_answer(ctx: Context) -> None:
    effect, before, begun = Effect(), made_keys(ctx), threading.Barrier(4)

    def send(number: int) -> Answer:
        begun.wait()
        request = IdempotentRequest("s", "k", "h", f"owner {number}", ctx.clock.now())
        return do_once(ctx, CIPHER, request, effect, sleep=time.sleep)[0]

    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(send, range(4)))
    assert answers == {(201, '{"call":1}')}
    assert (effect.calls, made_keys(ctx)) == (1, before + 1)


def test_what_had_no_effect_is_done_by_the_next_and_by_nobody_else_after_that(
    ctx: Context,
) -> None:
    """The first one is stopped before its unit of work, and goes on when the other is done."""
    effect, before, answers = Effect(), made_keys(ctx), []

    class Stopped(Effect):
        def __call__(self, ctx_: Context) -> Answer:
            answers.append(once(ctx, effect, owner="b"))
            return super().__call__(ctx_)

    with pytest.raises(StaleWrite, match="done elsewhere"):
        once(ctx, Stopped(), owner="a")
    assert answers == [((201, '{"call":1}'), False)]
    assert once(ctx, effect, owner="c") == ((201, '{"call":1}'), True)
    assert (effect.calls, made_keys(ctx)) == (1, before + 1)


def test_what_took_effect_and_was_not_answered_is_not_done_again(ctx: Context) -> None:
    effect, before = Effect(), made_keys(ctx)

    class Killed(Effect):
        def __call__(self, ctx: Context) -> Answer:
            super().__call__(ctx)
            raise StoreUnavailable("as if the process had ended here")

    with pytest.raises(StoreUnavailable):
        once(ctx, Killed())
    with pytest.raises(Conflict, match="took effect"):
        once(ctx, effect, owner="b")
    assert (effect.calls, made_keys(ctx)) == (0, before + 1)


def test_what_was_refused_is_not_kept_and_another_body_is_refused(ctx: Context) -> None:
    effect = Effect()

    class Refused(Effect):
        def __call__(self, _: Context) -> Answer:
            raise Conflict("busy")

    with pytest.raises(Conflict, match="busy"):
        once(ctx, Refused())
    assert once(ctx, effect)[1] is False
    with pytest.raises(InputError, match="another body"):
        once(ctx, effect, content="other")


def test_a_day_later_it_is_a_new_request_and_its_answer_is_deleted(ctx: Context) -> None:
    effect, clock = Effect(), ctx.clock
    assert isinstance(clock, ManualClock)
    once(ctx, effect)
    clock.advance(timedelta(days=1).total_seconds())
    assert once(ctx, effect) == ((201, '{"call":2}'), False)
    clock.advance(timedelta(days=1, seconds=1).total_seconds())
    housekeeping.purge_expired(ctx, alerts_days=1, failovers_days=1, traffic_days=400)
    with ctx.store.read() as tx:
        assert tx.idempotent_requests.find("scope", "monday-1") is None


def test_an_answer_that_was_put_under_another_key_is_not_given(ctx: Context) -> None:
    once(ctx, Effect())
    with ctx.store.write() as tx:
        known = tx.idempotent_requests.find("scope", "monday-1")
        assert known is not None
        moved = replace(known, scope="another", claimed_at=ctx.clock.now() - LEASE)
        assert tx.idempotent_requests.claim(moved)
    asked = IdempotentRequest("another", "monday-1", "h", "b", ctx.clock.now())
    with pytest.raises(Conflict, match="cannot be read"):
        do_once(ctx, CIPHER, asked, Effect(), sleep=time.sleep)
