"""A remembered world is the one that a test would have lived through."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.remembered_worlds import MEMORY
from tests.support.control.short_policies import approved


def begun(folder: Path, **changed: Any) -> SmallInstallation:
    folder.mkdir()
    world = SmallInstallation(folder, **changed)
    world.set_up()
    return world


def rows(world: SmallInstallation) -> list[str]:
    with closing(sqlite3.connect(str(world.store._engine.url.database))) as db:
        return list(db.iterdump())


def test_it_has_the_rows_the_time_and_the_next_id_of_a_lived_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MEMORY, "is_on", False)
    lived = begun(tmp_path / "lived")
    canary = lived.in_canary()
    monkeypatch.setattr(MEMORY, "is_on", True)
    first = begun(tmp_path / "first").in_canary()

    remembered = begun(tmp_path / "remembered")
    again = remembered.in_canary()
    assert again is first  # it was not lived through
    assert again == canary
    assert rows(remembered) == rows(lived)
    assert remembered.clock.now() == lived.clock.now()
    assert remembered.chance.token("x") == lived.chance.token("x")

    # And it goes on in the same way.
    for world in (remembered, lived):
        world.feed(blocks=4)
        world.run_once()
    assert rows(remembered) == rows(lived)


@pytest.mark.parametrize(
    "changed",
    [
        {"policy": approved()},
        {"script": lambda _target, item, _epoch: str(item.target)},
        {"observe_only": True},
    ],
    ids=["policy", "script", "observe only"],
)
def test_a_world_that_differs_lives_through_its_own(
    changed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MEMORY, "is_on", True)
    begun(tmp_path / "plain").decided()
    beside = begun(tmp_path / "beside", **changed)
    beside.decided()
    monkeypatch.setattr(MEMORY, "is_on", False)
    alone = begun(tmp_path / "alone", **changed)
    alone.decided()

    assert rows(beside) == rows(alone)


def test_another_step_between_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MEMORY, "is_on", True)
    begun(tmp_path / "first").decided()
    later = begun(tmp_path / "later")
    later.clock.advance(60)
    assert later.decided().created_at == later.clock.now() - timedelta(seconds=2)

    other = begun(tmp_path / "other")
    assert other.decided("sim/worse", BEN).proposer == "ben"


def test_a_test_that_replaces_the_products_code_remembers_nothing() -> None:
    before = MEMORY.is_on
    try:
        MEMORY.allow_for(frozenset({"monkeypatch", "tmp_path"}))
        assert not MEMORY.is_on
        MEMORY.allow_for(frozenset({"tmp_path"}))
        assert MEMORY.is_on
    finally:
        MEMORY.is_on = before
