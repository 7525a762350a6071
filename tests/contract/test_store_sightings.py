"""What providers said that they served, in every store, through the port."""

from dataclasses import replace
from datetime import timedelta

import pytest

from harness.domain.evals.pins import MAX_SIGHTINGS, ServedModel, Sighting
from harness.store.store import Store
from tests.support.store.records import LATER, NOW

ONE = Sighting("t_1", ServedModel("m-1", "fp"), NOW, NOW)


@pytest.mark.req("F6")
def test_a_model_that_is_seen_again_keeps_its_first_time_and_moves_its_last(
    store: Store,
) -> None:
    again = replace(ONE, first_at=LATER, last_at=LATER)
    other = replace(again, served=ServedModel("m-2"), last_at=LATER + timedelta(1))
    with store.write() as tx:
        tx.sightings.note([ONE])
        tx.sightings.note([other, again, replace(ONE, target="t_2")])
        tx.sightings.note([ONE])

    with store.read() as tx:
        assert list(tx.sightings.for_target("t_1")) == [other, replace(ONE, last_at=LATER)]
        assert list(tx.sightings.for_target("t_3")) == []


def test_a_provider_that_invents_names_fills_nothing(store: Store) -> None:
    with store.write() as tx:
        for n in range(3 * MAX_SIGHTINGS):
            at = NOW + timedelta(seconds=n)
            tx.sightings.note([Sighting("t_1", ServedModel(f"m-{n}"), at, at)])
        tx.sightings.note(
            [replace(ONE, target="t_2", served=ServedModel("x\0" * 500, "\ud800"))]
        )
        tx.sightings.note([replace(ONE, target="t_3", served=ServedModel(""))])

    with store.read() as tx:
        newest = [sighting.served.model for sighting in tx.sightings.for_target("t_1")]
        (long,) = tx.sightings.for_target("t_2")
        assert not tx.sightings.for_target("t_3")
    assert newest == [f"m-{n}" for n in reversed(range(2 * MAX_SIGHTINGS, 3 * MAX_SIGHTINGS))]
    assert len(long.served.model) == 200
