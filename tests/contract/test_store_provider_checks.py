"""What was found of each provider last, in every store, through the port."""

from dataclasses import replace
from datetime import timedelta

import pytest

from harness.domain.errors import InputError
from harness.domain.providers.probe import (
    ProbeFinding,
    ProbeStatus,
    ProbeSubject,
    ProviderCheck,
)
from harness.store.store import Store
from tests.support.store.records import LATER, NOW, PROVIDER

pytestmark = pytest.mark.req("D5", "E4")
FOUND = ProviderCheck(
    "sim",
    "sim",
    "sim/good",
    ok=False,
    findings=(
        ProbeFinding(
            ProbeSubject.KEY, ProbeStatus.FAIL, "the key is refused", "store another one"
        ),
        ProbeFinding(ProbeSubject.REACHABLE, ProbeStatus.OK, "it answers \ud800 \0"),
    ),
    at=NOW,
)


@pytest.fixture
def stored(store: Store) -> Store:
    with store.write() as tx:
        tx.providers.put(PROVIDER)
        tx.provider_checks.keep([FOUND])
    return store


def test_a_check_comes_back_as_it_was_and_no_router_hears_of_it(stored: Store) -> None:
    etag = stored.etag()
    other = replace(FOUND, target=None, ok=True, findings=(), at=LATER)
    with stored.read() as tx:
        assert tx.provider_checks.all() == [FOUND]

    with stored.write() as tx:
        tx.provider_checks.keep([other])

    with stored.read() as tx:
        assert tx.provider_checks.all() == [other]
    assert stored.etag() == etag


def test_of_two_processes_the_one_that_asked_last_is_believed(stored: Store) -> None:
    with stored.write() as tx:
        tx.provider_checks.keep([replace(FOUND, ok=True, at=NOW - timedelta(seconds=1))])

    with stored.read() as tx:
        assert tx.provider_checks.all() == [FOUND]


def test_a_check_of_an_unknown_provider_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="no provider 'sim'"), store.write() as tx:
        tx.provider_checks.keep([FOUND])
