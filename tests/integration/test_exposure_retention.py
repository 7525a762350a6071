"""The exposures of a canary outlive it by `control.exposures_keep_days`, and no longer."""

from dataclasses import replace
from datetime import timedelta

import pytest

from harness.canary import operations
from harness.gate.online.exposures import (
    KEPT,
    EventKind,
    Exposure,
    ExposureCount,
    ExposureEvent,
)
from harness.gate.online.outcome import OutcomeKind
from harness.gate.online.rollout import RolloutSignal, name_first_callers
from harness.operations import control_jobs
from harness.routing.records.exposures import Exposures
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN

pytestmark = [pytest.mark.req("F3", "G4"), pytest.mark.both_databases]


def store_exposures(world: SmallInstallation, name: str) -> None:
    now = world.clock.now()
    new = Exposure(
        rollout=name,
        number=0,
        worker="w",
        ticket=1,
        period=1,
        caller=7,
        sample=0,
        canary=True,
        weight_bps=100,
        admitted_at=now,
        traits=0,
    )
    event = ExposureEvent(name, 0, "w", 1, EventKind.ENDED, now, now, OutcomeKind.ANSWERED)
    count = ExposureCount(name, now, "w", 100, canary=True, reason=KEPT, requests=1)
    with world.store.write() as tx:
        Exposures(tx).append([new, replace(new, ticket=2)], [event])
        Exposures(tx).add_counts([count])
        Exposures(tx).note_file("w", "router", 100, now)


def purge(world: SmallInstallation) -> None:
    control_jobs.purge_expired(
        world.context(),
        alerts_days=90,
        exposures_days=30,
        failovers_days=90,
        traffic_days=400,
    )


def stored(world: SmallInstallation, *names: str) -> list[int]:
    with world.store.read() as tx:
        rows = Exposures(tx)
        return [
            len([*rows.exposures(name), *rows.events(name), *rows.counts(name)])
            for name in names
        ]


def test_exposures_are_kept_for_a_time_after_the_end_of_their_canary(
    world: SmallInstallation,
) -> None:
    world.in_canary()
    rollout = world.rollout().id
    names = (rollout, name_first_callers(rollout))
    for name in names:
        store_exposures(world, name)
    world.clock.advance(timedelta(days=40).total_seconds())
    purge(world)
    assert stored(world, *names) == [4, 4]

    operations.operate(world.context(), BEN, "chat", RolloutSignal.ABORT, "enough")
    world.clock.advance(timedelta(days=29).total_seconds())
    purge(world)
    assert stored(world, *names) == [4, 4]
    with world.store.read() as tx:
        assert Exposures(tx).file_positions(["w"]) == {"w": 100}

    world.clock.advance(timedelta(days=2).total_seconds())
    store_exposures(world, "r_of_another_database")
    purge(world)
    assert stored(world, *names, "r_of_another_database") == [0, 0, 0]

    # A router may bring rows of an ended canary after all; they go the next time.
    store_exposures(world, rollout)
    assert stored(world, rollout) == [4]
    world.clock.advance(timedelta(days=91).total_seconds())
    purge(world)
    assert stored(world, rollout) == [0]
    with world.store.read() as tx:
        assert Exposures(tx).file_positions(["w"]) == {}
