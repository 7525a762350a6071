"""The wheels are built and installed once for a run of the tests; installations are ended."""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.acceptance.installation import INHERITED, Installation
from tests.support.site.shared_wheel import shared_folder, shared_wheels

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.support.store.postgres import Postgres

ROOT = Path(__file__).parents[2]
BUILD_S = 900
DATABASES = ("sqlite", "postgresql")
# For stories that take long: on PostgreSQL they run in `make verify` alone.
LATER_ON_POSTGRESQL = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.verify),
]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the stories of this folder; pytest asks a folder's conftest about no others."""
    item.add_marker(pytest.mark.acceptance)


def run(*command: str | Path) -> None:
    done = subprocess.run(  # noqa: S603 - commands of this file
        command,
        cwd=ROOT,
        env={name: os.environ[name] for name in (*INHERITED, "HOME") if name in os.environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=BUILD_S,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def swapproof(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`swapproof` of an environment with our wheel, and this environment's other packages.

    The checkout is not among them: a `.pth` file counts in an environment's own folder only.
    """
    folder = shared_folder(tmp_path_factory) / "wheel"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(shared_wheels(tmp_path_factory), folder)
            (folder / "installed").touch()
    return folder / "venv/bin/swapproof"


def install(wheels: tuple[Path, Path], folder: Path) -> None:
    uv = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
    assert uv is not None, "uv is missing: make setup"
    run(uv, "venv", "--quiet", "--python", sys.executable, folder / "venv")
    python = folder / "venv/bin/python"
    options = ("--quiet", "--no-deps", "--offline", "--compile-bytecode")
    run(uv, "pip", "install", "--python", python, *options, *wheels)
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")


class Installing(Protocol):
    """Makes an installation that is ended with its test, module or session."""

    def __call__(
        self,
        settings: Mapping[str, Any] | Callable[[Installation], Mapping[str, Any]],
        *,
        database: str = "sqlite",
    ) -> Installation:
        """Creates an installation.

        Args:
            settings: the configuration, or what makes it of an installation that has none yet,
                so that it can start simulators first.
            database: sqlite or postgresql.
        """
        ...


class Installer:
    def __init__(
        self,
        program: Path,
        folder: Path,
        postgres: "Callable[[], Postgres]",
    ) -> None:
        self._program = program
        self._folder = folder
        self._postgres = postgres
        self._made: list[Installation] = []
        self._databases: list[Any] = []

    def __call__(
        self,
        settings: Mapping[str, Any] | Callable[[Installation], Mapping[str, Any]],
        *,
        database: str = "sqlite",
    ) -> Installation:
        url = ""
        if database == "postgresql":
            handed = self._postgres().empty_database()
            url = handed.__enter__()
            self._databases.append(handed)
        folder = Path(tempfile.mkdtemp(prefix="installation", dir=self._folder))
        made = Installation(self._program, folder, {}, url)
        self._made.append(made)
        made.configure(settings(made) if callable(settings) else settings)
        made.init()
        return made

    def close(self) -> None:
        for made in self._made:
            made.close()
        for database in self._databases:
            database.__exit__(None, None, None)


@pytest.fixture(scope="session")
def postgres_server() -> "Callable[[], Postgres]":
    """Gives the real PostgreSQL of this run, shared with all its other tests."""

    def server() -> "Postgres":
        if sys.platform != "linux":
            pytest.skip("PostgreSQL for the tests is installed on Linux only")
        from tests.support.store.postgres import Postgres, started  # noqa: PLC0415 - Linux only

        run_name = os.environ["SWAPPROOF_TEST_RUN"]
        folder = Path(tempfile.gettempdir()) / f"swapproof-postgres-{run_name}"
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return Postgres(started(folder))

    return server


@pytest.fixture
def installing(
    swapproof: Path,
    tmp_path: Path,
    postgres_server: "Callable[[], Postgres]",
) -> Iterator[Installing]:
    installer = Installer(swapproof, tmp_path, postgres_server)
    yield installer
    installer.close()


@pytest.fixture(scope="module")
def installing_once(
    swapproof: Path,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: "Callable[[], Postgres]",
) -> Iterator[Installing]:
    """As `installing`, for the tests of a module together."""
    installer = Installer(swapproof, tmp_path_factory.mktemp("module"), postgres_server)
    yield installer
    installer.close()


@pytest.fixture(scope="module", params=DATABASES)
def database(request: pytest.FixtureRequest) -> str:
    """Each story that asks for it runs on SQLite and on PostgreSQL."""
    return str(request.param)


@pytest.fixture
def browser() -> "Iterator[Browser]":
    from tests.acceptance.pages import launched  # noqa: PLC0415 - only for stories of pages

    with launched() as started:
        yield started
