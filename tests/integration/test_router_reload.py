"""What SIGHUP reads: the file, `.env` and the environment that the parent began with."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.app import data_plane
from harness.app.installation import load_settings, open_installation
from harness.domain.errors import ConfigError

FILE = "home: state\nrouter: {port: 8099, workers: 2}\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SWAPGATE_SECRET", "the secret")
    monkeypatch.setenv("OF_THE_SHELL", "kept")
    before = dict(os.environ)
    file = tmp_path / "swapgate.yaml"
    file.write_text(FILE, encoding="utf-8")
    (tmp_path / ".env").write_text("SIM_KEY=old\n", encoding="utf-8")
    yield file
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.req("E3")
def test_a_changed_dotenv_and_file_are_taken_and_the_flag_still_wins(file: Path) -> None:
    installation = open_installation(file)
    assert os.environ["SIM_KEY"] == "old"

    (file.parent / ".env").write_text("SIM_KEY=new\nOF_THE_SHELL=lost\n", encoding="utf-8")
    file.write_text(FILE + "switches: [provider:backup]\n", encoding="utf-8")
    again = data_plane._reload_settings(file, installation, 4)

    assert (os.environ["SIM_KEY"], os.environ["OF_THE_SHELL"]) == ("new", "kept")
    assert again.switches == ("provider:backup",)
    assert again.router.workers == 4


@pytest.mark.req("D8")
def test_a_changed_class_of_data_reaches_the_workers(file: Path) -> None:
    file.write_text(FILE + "data_classes: {personal: [up, away]}\n", encoding="utf-8")
    installation = open_installation(file)

    file.write_text(FILE + "data_classes: {personal: [up]}\n", encoding="utf-8")
    orders = data_plane._worker_spec(data_plane._reload_settings(file, installation, None))

    given = pickle.loads(orders.given)  # noqa: S301 - our own
    assert given.data_classes == {"personal": frozenset({"up"})}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("home: state\nrouter: {prot: 1}\n", "swapgate.yaml:2: unknown key 'router.prot'"),
        ("home: state\nrouter: {port: 9}\n", "router.port changed, which takes a restart"),
        ("home: other\nrouter: {port: 8099}\n", "home changed, which takes a restart"),
        (f"{FILE}database_url: sqlite:///x.db\n", "database_url changed"),
    ],
)
def test_what_is_wrong_or_takes_a_restart_is_refused_and_changes_nothing(
    file: Path, text: str, says: str
) -> None:
    installation = open_installation(file)
    environment = dict(os.environ)
    (file.parent / ".env").write_text("SIM_KEY=new\n", encoding="utf-8")
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=says):
        data_plane._reload_settings(file, installation, None)

    assert dict(os.environ) == environment


def test_another_secret_takes_a_restart(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installation = open_installation(file)
    monkeypatch.setenv("SWAPGATE_SECRET", "other")

    with pytest.raises(ConfigError, match="SWAPGATE_SECRET changed"):
        data_plane._reload_settings(file, installation, None)


def test_a_worker_gives_memory_back_after_large_answers_unless_told_otherwise(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "7")
    given = data_plane._worker_spec(load_settings(file)).environment

    assert given["MALLOC_MMAP_THRESHOLD_"] == str(8 * 1024 * 1024)
    assert given["MALLOC_TRIM_THRESHOLD_"] == "7"
    assert "MALLOC_MMAP_THRESHOLD_" not in os.environ
