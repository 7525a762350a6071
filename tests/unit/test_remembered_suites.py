"""A remembered suite is the one that the product would have loaded."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from evals.suites import configured_suites
from evals.suites.configured_suites import ConfiguredSuites
from evals.suites.suite import Suite, load_suite
from harness.evals.settings import SuiteSettings
from harness.frame.errors import InputError
from tests.support.control.colours_suite import suite_file
from tests.support.evals import remembered_suites

DERIVED = sorted(remembered_suites.DERIVED)


def settings(folder: Path) -> SuiteSettings:
    folder.mkdir()
    return SuiteSettings("colours", path=suite_file(folder), scorer="exact")


def test_it_has_the_items_and_the_pin_of_a_loaded_one_and_names_its_own_file(
    tmp_path: Path,
) -> None:
    first = remembered_suites.load_suite(settings(tmp_path / "first"))
    assert [getattr(first, name) for name in DERIVED]
    own = settings(tmp_path / "own")

    remembered = remembered_suites.load_suite(own)
    assert remembered.items is first.items  # nothing was loaded
    loaded = load_suite(own)
    for name in (*DERIVED, *(field.name for field in fields(Suite))):
        assert getattr(remembered, name) == getattr(loaded, name)
    assert remembered.settings is own


def test_a_changed_file_and_changed_settings_are_loaded_and_a_broken_file_is_refused(
    tmp_path: Path,
) -> None:
    own = settings(tmp_path / "own")
    assert own.path is not None
    before = remembered_suites.load_suite(own)
    assert remembered_suites.load_suite(replace(own, version="9")).pin.version == "9"

    text = own.path.read_text(encoding="utf-8")
    own.path.write_text(text.replace("number 7?", "number seven?"), encoding="utf-8")
    after = remembered_suites.load_suite(own)
    assert after.pin == load_suite(own).pin != before.pin

    own.path.write_text("{", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(InputError):
            remembered_suites.load_suite(own)


def test_the_catalogues_of_a_test_process_load_each_suite_once(tmp_path: Path) -> None:
    own = settings(tmp_path / "own")
    one, other = (ConfiguredSuites({own.name: own}).suite(own.name) for _ in range(2))
    assert one.items is other.items
    assert configured_suites.__dict__["load_suite"] is remembered_suites.load_suite
