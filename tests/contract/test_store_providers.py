from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from harness.app.store.store import Store
from harness.frame.errors import InputError, StaleWrite
from harness.frame.records.repository import Records
from harness.frame.records.transaction import Transaction
from harness.gate.pins import MAX_SIGHTINGS, ServedModel, Sighting
from harness.providers.calls.probe import (
    ProbeFinding,
    ProbeStatus,
    ProbeSubject,
    ProviderCheck,
)
from harness.providers.credential import Credential
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.oauth import SignIn
from harness.providers.records import (
    Credentials,
    DiscoveredModels,
    ProviderChecks,
    Providers,
    Sightings,
    SignIns,
)
from harness.providers.target import Price
from tests.support.store.records import LATER, NOW, PROVIDER

KEY = Credential("sim", "default", "c1", 0, NOW, NOW, "ada")
OLD = replace(
    KEY,
    name="default.old",
    ciphertext="c0",
    position=1,
    expires_at=LATER,
)
SIGNED_IN = SignIn(
    "sim",
    "si-1",
    "c1",
    NOW,
    "ada",
    renewed_at=NOW,
    account_due=LATER,
)
RENEWED = replace(
    SIGNED_IN,
    ciphertext="sealed-2",
    access_due=NOW,
    access_ends=LATER,
    attempts=2,
    refused="no",
)
KEY_REFUSED = ProbeFinding(
    ProbeSubject.KEY,
    ProbeStatus.FAIL,
    "the key is refused",
    "store another one",
)
ANSWERS = ProbeFinding(ProbeSubject.REACHABLE, ProbeStatus.OK, "it answers \ud800 \0")
FOUND = ProviderCheck(
    "sim",
    "sim",
    "sim/good",
    ok=False,
    findings=(KEY_REFUSED, ANSWERS),
    at=NOW,
)
SMALL = DiscoveredModel("sim", "llama-4-scout", PROVIDER.api_base, NOW, listed_since=NOW)
LARGE = replace(
    SMALL,
    model="vendor/llama:free",
    context_window=131072,
    price=Price(0.1, 0.2, 0.05),
)
SEEN = Sighting("t_1", ServedModel("m-1", "fp"), NOW, NOW)


@pytest.fixture
def stored(store: Store) -> Store:
    with store.write() as tx:
        Providers(tx).put(PROVIDER)
    return store


def put_keys(tx: Transaction, keys: Sequence[Credential]) -> None:
    for key in reversed(keys):
        Credentials(tx).put(key)


def put_sign_in(tx: Transaction, sign_ins: Sequence[SignIn]) -> None:
    if sign_ins == [SIGNED_IN]:
        SignIns(tx).start(SIGNED_IN)
    else:
        SignIns(tx).save(sign_ins[0])


def put_models(tx: Transaction, models: Sequence[DiscoveredModel]) -> None:
    DiscoveredModels(tx).replace("sim", models)


def put_checks(tx: Transaction, checks: Sequence[ProviderCheck]) -> None:
    ProviderChecks(tx).keep(checks)


LATER_CHECK = replace(
    FOUND,
    target=None,
    ok=True,
    findings=(),
    at=LATER,
)
KINDS: dict[
    type[Records[Any]],
    tuple[Callable[[Transaction, Any], None], list[Any], list[Any]],
] = {
    Credentials: (
        put_keys,
        [KEY, OLD],
        [replace(KEY, ciphertext="c2"), OLD],
    ),
    SignIns: (put_sign_in, [SIGNED_IN], [RENEWED]),
    DiscoveredModels: (
        put_models,
        [SMALL, LARGE],
        [replace(SMALL, found_at=LATER)],
    ),
    ProviderChecks: (put_checks, [FOUND], [LATER_CHECK]),
}


@pytest.mark.req("C2", "D2", "D4", "D5", "E4")
def test_what_is_stored_comes_back_in_order_and_routers_hear_of_keys_alone(
    store: Store,
) -> None:
    for put, first, _ in KINDS.values():
        with (
            pytest.raises(InputError, match="no provider 'sim'"),
            store.write() as tx,
        ):
            put(tx, first)
    with store.write() as tx:
        Providers(tx).put(PROVIDER)
    for kind, (put, *both) in KINDS.items():
        for records in both:
            etag = store.etag()
            with store.write() as tx:
                put(tx, records)
            with store.read() as tx:
                assert kind(tx).all() == records
            assert (store.etag() != etag) is (kind is Credentials)
    assert "sealed-2" not in repr(store.snapshot())


@pytest.mark.req("D5")
def test_of_two_processes_the_one_that_asked_last_is_believed(stored: Store) -> None:
    with stored.write() as tx:
        put_checks(tx, [FOUND])
        put_checks(tx, [replace(FOUND, ok=True, at=NOW - timedelta(seconds=1))])

    with stored.read() as tx:
        assert ProviderChecks(tx).all() == [FOUND]


def test_a_provider_that_invents_names_fills_nothing(store: Store) -> None:
    with store.write() as tx:
        for n in range(3 * MAX_SIGHTINGS):
            at = NOW + timedelta(seconds=n)
            Sightings(tx).note([Sighting("t_1", ServedModel(f"m-{n}"), at, at)])
        long_name = ServedModel("x\0" * 500, "\ud800")
        Sightings(tx).note([replace(SEEN, target="t_2", served=long_name)])
        Sightings(tx).note([replace(SEEN, target="t_3", served=ServedModel(""))])

    with store.read() as tx:
        newest = [sighting.served.model for sighting in Sightings(tx).for_target("t_1")]
        (long,) = Sightings(tx).for_target("t_2")
        assert not Sightings(tx).for_target("t_3")
    assert newest == [f"m-{n}" for n in reversed(range(2 * MAX_SIGHTINGS, 3 * MAX_SIGHTINGS))]
    assert len(long.served.model) == 200


@pytest.mark.req("D2", "D4")
def test_what_a_former_sign_in_gave_is_dropped(stored: Store) -> None:
    with stored.write() as tx:
        SignIns(tx).start(SIGNED_IN)
        SignIns(tx).start(replace(SIGNED_IN, id="si-2"))
    with (
        pytest.raises(StaleWrite, match="a person signed in or out"),
        stored.write() as tx,
    ):
        SignIns(tx).save(replace(SIGNED_IN, ciphertext="late"))
    with stored.write() as tx:
        assert SignIns(tx).end("sim")
        assert not SignIns(tx).end("sim")
    with pytest.raises(StaleWrite), stored.write() as tx:
        SignIns(tx).save(replace(SIGNED_IN, id="si-2"))

    with stored.read() as tx:
        assert SignIns(tx).all() == []


@pytest.mark.req("C2")
def test_an_empty_list_or_a_removed_provider_takes_its_models_away(stored: Store) -> None:
    with stored.write() as tx:
        put_models(tx, [SMALL])
        put_models(tx, [])
        assert DiscoveredModels(tx).all() == []
        put_models(tx, [SMALL])
        Providers(tx).remove("sim")
    with stored.read() as tx:
        assert DiscoveredModels(tx).all() == []


@pytest.mark.req("F6")
def test_a_model_that_is_seen_again_keeps_its_first_time_and_moves_its_last(
    store: Store,
) -> None:
    again = replace(SEEN, first_at=LATER, last_at=LATER)
    other = replace(again, served=ServedModel("m-2"), last_at=LATER + timedelta(1))
    with store.write() as tx:
        Sightings(tx).note([SEEN])
        Sightings(tx).note([other, again, replace(SEEN, target="t_2")])
        Sightings(tx).note([SEEN])

    with store.read() as tx:
        assert list(Sightings(tx).for_target("t_1")) == [
            other,
            replace(SEEN, last_at=LATER),
        ]
        assert list(Sightings(tx).for_target("t_3")) == []
