"""In which project a sign-in acts is kept over a restart of the dashboard."""

from pathlib import Path

import pytest

from dashboard import chosen_projects
from dashboard.chosen_projects import ChosenProjects

pytestmark = pytest.mark.req("G3")


def test_a_choice_is_known_after_a_restart_until_the_person_signs_out(tmp_path: Path) -> None:
    file = tmp_path / chosen_projects.FILE
    ChosenProjects(file).choose("ds_1", "search")
    restarted = ChosenProjects(file)
    assert (restarted.find("ds_1"), restarted.find("ds_2")) == ("search", None)
    restarted.forget("ds_1")
    assert ChosenProjects(file).find("ds_1") is None


@pytest.mark.parametrize("text", ["", "[1]", '{"ds_1": 1}', "\x00"])
def test_a_damaged_file_is_no_choice_and_a_missing_folder_keeps_nobody_from_one(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / chosen_projects.FILE
    file.write_text(text, encoding="utf-8")
    assert ChosenProjects(file).find("ds_1") is None
    away = ChosenProjects(tmp_path / "away" / "file")
    away.choose("ds_1", "search")
    assert away.find("ds_1") == "search"


def test_of_very_many_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen_projects, "MOST", 2)
    chosen = ChosenProjects()
    for session in ("ds_1", "ds_2", "ds_1", "ds_3"):
        chosen.choose(session, "search")
    assert [chosen.find(session) for session in ("ds_1", "ds_2", "ds_3")] == [
        "search",
        None,
        "search",
    ]
