"""Which PostgreSQL server is an old primary, by the timelines that were seen."""

import json
from pathlib import Path

from harness.store.postgres.primary_timelines import PrimaryTimelines, Timeline


def test_a_lower_timeline_of_the_same_cluster_is_old() -> None:
    seen = PrimaryTimelines()
    seen.note(Timeline("one", 2))
    seen.note(Timeline("one", 1))
    assert seen.is_old(Timeline("one", 1))
    assert not seen.is_old(Timeline("one", 2))
    assert not seen.is_old(Timeline("one", 3))
    assert not seen.is_old(Timeline("another", 1))


def test_processes_of_one_home_know_what_one_of_them_has_seen(tmp_path: Path) -> None:
    file = tmp_path / "database-timelines"
    first, second = PrimaryTimelines(), PrimaryTimelines()
    for timelines in (first, second):
        timelines.keep_in(file)
    first.note(Timeline("one", 1))
    assert not file.exists()  # there is no old one yet
    first.note(Timeline("one", 3))
    assert second.newest("one") == 3
    second.note(Timeline("two", 2))
    assert json.loads(file.read_text("utf-8")) == {"one": 3, "two": 2}


def test_a_file_that_cannot_be_read_or_written_keeps_nobody_from_the_database(
    tmp_path: Path,
) -> None:
    torn = tmp_path / "torn"
    torn.write_text('{"one": ', "utf-8")
    for file in (torn, tmp_path / "missing" / "file", tmp_path):
        seen = PrimaryTimelines()
        seen.keep_in(file)
        seen.note(Timeline("one", 2))
        assert seen.newest("one") == 2
