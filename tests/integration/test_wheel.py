"""The wheel works outside the checkout: installed alone, with nothing of ours on the path."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Whole minutes on a cold cache: about a hundred packages are downloaded.
TIMEOUT_S = 900


def run(*command: str | Path, cwd: Path) -> str:
    """What the command printed on stdout; fails with all it printed if it failed."""
    ours = ("PYTHON", "COVERAGE", "COV_", "SWAPGATE", "VIRTUAL_ENV")
    done = subprocess.run(  # noqa: S603 - commands of this file
        command,
        cwd=cwd,
        env={name: each for name, each in os.environ.items() if not name.startswith(ours)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def uv() -> str:
    """The uv of our virtual environment, else one on PATH."""
    found = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
    assert found is not None, "uv is missing: make setup"
    return found


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment `venv` that holds the locked packages and our wheel."""
    folder = tmp_path_factory.mktemp("elsewhere")
    build = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    run(*build, cwd=ROOT)
    (wheel,) = folder.glob("swapgate-*.whl")
    python = folder / "venv/bin/python"
    install = (uv(), "pip", "install", "--quiet", "--python", python)
    run(uv(), "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=folder)
    lock = ROOT / "requirements/runtime.lock"
    run(*install, "--require-hashes", "-r", lock, cwd=folder)
    run(*install, "--no-deps", "--offline", wheel, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def site_packages(elsewhere: Path) -> Path:
    (found,) = elsewhere.glob("venv/lib/python*/site-packages")
    return found


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
def test_init_and_doctor_run_outside_the_checkout(elsewhere: Path, tmp_path: Path) -> None:
    swapgate = elsewhere / "venv/bin/swapgate"

    run(swapgate, "init", cwd=tmp_path)
    run(swapgate, "doctor", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
def test_data_and_migrations_lie_inside_harness(site_packages: Path) -> None:
    shipped = site_packages / "harness/_shipped"

    for folder in ("datasets", "migrations"):
        assert files_of(shipped / folder) == files_of(ROOT / folder)
    assert (shipped / "config/default.yaml").read_bytes() == (
        ROOT / "config/default.yaml"
    ).read_bytes()
    assert list(site_packages.glob("dashboard/views/*.py"))


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.req("B1")
def test_the_client_is_imported_by_its_name_and_has_its_types(
    elsewhere: Path, site_packages: Path
) -> None:
    code = "import swapgate; print(swapgate.ModelClient.__name__, swapgate.__file__)"
    name, file = run(elsewhere / "venv/bin/python", "-I", "-c", code, cwd=elsewhere).split()

    assert name == "ModelClient"
    assert Path(file).is_relative_to(site_packages)
    assert (site_packages / "swapgate/py.typed").exists()
    assert (site_packages / "harness/py.typed").exists()


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
def test_nothing_of_ours_lies_beside_other_libraries(
    elsewhere: Path, site_packages: Path
) -> None:
    record = next(site_packages.glob("swapgate-*.dist-info")) / "RECORD"
    tops = {line.split(",")[0].split("/")[0] for line in record.read_text().splitlines()}
    ours = {name for name in tops if name != ".." and not name.endswith(".dist-info")}

    assert ours == {"swapgate", "harness", "router", "evals", "dashboard"}
    for name in ("datasets", "migrations", "tests"):
        assert not (site_packages / name).exists()
    imported = "import harness; print(harness.__file__)"
    found = run(elsewhere / "venv/bin/python", "-I", "-c", imported, cwd=elsewhere)
    assert Path(found.strip()).is_relative_to(site_packages)


def files_of(folder: Path) -> set[Path]:
    return {
        file.relative_to(folder)
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
