"""`swapproof-try` is a distribution of its own, and shares the package `swapproof` (ADR
0049).
"""

import ast
import json
import resource
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from harness.frame.signing.keyring import format_keyring
from harness.routing.evidence import format_proof
from hatch_build import TRY_CONTRACT
from tests.integration.test_proof_export import exported
from tests.integration.test_release import imported_names
from tests.integration.test_wheel import TIMEOUT_S, environment, run, site_packages, uv
from tests.support.control.control_plane import SmallInstallation
from tests.support.site.shared_wheel import shared_wheels
from tests.support.site.signing_keys import KEYRING

ROOT = Path(__file__).parents[2]
PAIRS = "item,incumbent,candidate\n" + "".join(f"{n},{n % 2},1\n" for n in range(80))
BLOCKS = "block,requests,canary_requests,failures,canary_failures\na,100,10,3,1\n"
# The limits hold with SciPy: ADR 0049.
MOST_PACKAGES = 22
MOST_MB = 220
MOST_CPU_S = 3.0


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return shared_wheels(tmp_path_factory)


def needed_packages(wheel: Path) -> set[str]:
    """The distributions that a wheel needs, and those that they need."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        lines = archive.read(name).decode().splitlines()
    waiting = [
        line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist" in line
    ]
    found: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        is_needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if is_needed and requirement.name not in found:
            found.add(requirement.name)
            waiting += distribution(requirement.name).requires or []
    return found


def package_files(name: str) -> Iterator[Path]:
    """The files of an installed distribution in site-packages, without bytecode."""
    for file in distribution(name).files or ():
        place = Path(str(file.locate()))
        if file.parts[0] != ".." and file.suffix != ".pyc" and place.is_file():
            yield place


def install(folder: Path, *wheels: Path) -> Path:
    """Makes an environment with these wheels and what swapproof-try needs, and nothing else.

    Returns its folder of programs.
    """
    programs = folder / "venv/bin"
    python = programs / "python"
    run(uv(), "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=folder)
    options = ("--quiet", "--no-deps", "--offline", "--python", python)
    run(uv(), "pip", "install", *options, *wheels, cwd=folder)
    (small,) = (wheel for wheel in wheels if wheel.name.startswith("swapproof_try"))
    for name in needed_packages(small):
        for file in distribution(name).files or ():
            place = site_packages(folder) / file.parts[0]
            if file.parts[0] != ".." and not place.exists():
                place.symlink_to(Path(str(distribution(name).locate_file(file.parts[0]))))
    return programs


@pytest.fixture(scope="module")
def small(wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`swapproof-try` of an environment without `swapproof`."""
    return install(tmp_path_factory.mktemp("small"), wheels[1]) / "swapproof-try"


def refusal(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(  # noqa: S603 - commands of this file
        command,
        cwd=folder,
        env=environment(),
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode != 0
    return done.stderr


def test_no_file_lies_in_both_wheels(wheels: tuple[Path, Path]) -> None:
    whole, small = (set(zipfile.ZipFile(wheel).namelist()) for wheel in wheels)

    assert not whole & small
    assert {"swapproof/__init__.py", "swapproof/py.typed"} <= small
    assert "swapproof/__main__.py" in whole


def test_it_needs_the_packages_that_its_modules_import(wheels: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(wheels[1]) as archive:
        sources = [archive.read(name) for name in archive.namelist() if name.endswith(".py")]
    imported = {
        name.partition(".")[0]
        for source in sources
        for node in ast.walk(ast.parse(source))
        for name in imported_names(node)
    }
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = (
        contract
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["name"] == TRY_CONTRACT
    )
    doors = {line.partition(" -> ")[2] for line in contract["ignore_imports"]}
    others = imported - sys.stdlib_module_names - doors - {"swapproof"}
    known = packages_distributions()
    whole = settings["project"]
    small = tomllib.loads((ROOT / "distributions/try/pyproject.toml").read_text())["project"]

    assert {Requirement(line).name for line in small["dependencies"]} == {
        known[name][0].lower() for name in others
    }
    assert set(small["dependencies"]) <= set(whole["dependencies"])
    assert small["version"] == whole["version"]
    assert f"swapproof-try=={small['version']}" in whole["dependencies"]


def test_it_has_few_packages_and_is_small(wheels: tuple[Path, Path]) -> None:
    packages = needed_packages(wheels[1])
    with zipfile.ZipFile(wheels[1]) as archive:
        own_bytes = sum(entry.file_size for entry in archive.infolist())
    files = [file for name in packages for file in package_files(name)]

    assert len(packages) + 1 <= MOST_PACKAGES
    assert own_bytes + sum(file.stat().st_size for file in files) <= MOST_MB * 1_000_000


def test_files_are_judged_without_swapproof(small: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(PAIRS)
    (tmp_path / "blocks.csv").write_text(BLOCKS)

    assert "80 questions are 80 items" in run(small, "pairs.csv", cwd=tmp_path)
    tried = run(small, "--margin", "0.1", "pairs.csv", "--json", cwd=tmp_path)
    assert json.loads(tried)["verdict"] == "passed"
    assert "passed" in run(small, "gate", "decide", "pairs.csv", cwd=tmp_path)
    assert "hold" in run(small, "canary", "decide", "blocks.csv", cwd=tmp_path)
    assert run(small, "--version", cwd=tmp_path).startswith("swapproof-try 0.")


def test_logs_are_read_without_swapproof_and_unknown_prices_are_named(
    small: Path, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "tests/support/evals/sources/litellm_spend_logs.jsonl", tmp_path)

    shown = run(small, "attach", "litellm_spend_logs.jsonl", cwd=tmp_path)
    assert "prices and ends of models are unknown" in shown
    assert shown.splitlines()[-1].strip().startswith("swapproof suite draw")
    refused = refusal(small, "attach", "--otlp", "127.0.0.1:0", folder=tmp_path)
    assert "this needs the package swapproof" in refused


@pytest.mark.req("F5")
def test_a_proof_is_verified_without_swapproof(small: Path, tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    world = SmallInstallation(tmp_path / "world")
    world.set_up()
    proof = format_proof(exported(world, world.promoted().id))
    (tmp_path / "proof.json").write_text(proof, encoding="utf-8")
    (tmp_path / "signing.pub").write_text(format_keyring(KEYRING.values()), encoding="utf-8")

    words = ("proof", "verify", "proof.json", "--key", "signing.pub")
    assert "The proof holds." in run(small, *words, cwd=tmp_path)


def test_what_needs_the_whole_says_how_to_get_it(small: Path, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"input": "1 + 1", "target": "2"}\n')

    models = ("--incumbent", "sim/sim-base", "--candidate", "sim/sim-better")
    shown = refusal(small, "try", "--suite", "items.jsonl", *models, folder=tmp_path)
    assert f"`{small.parent / 'python'} -m pip install swapproof==" in shown
    assert "No such command 'run'" in refusal(small, "gate", "run", folder=tmp_path)


def test_either_distribution_can_be_uninstalled(
    wheels: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "pairs.csv").write_text(PAIRS)
    programs = install(tmp_path, *wheels)
    uninstall = (uv(), "pip", "uninstall", "--quiet", "--python", programs / "python")
    assert "Usage: swapproof" in run(programs / "swapproof", "--help", cwd=tmp_path)

    run(*uninstall, "swapproof", cwd=tmp_path)
    assert "80 items" in run(programs / "swapproof-try", "pairs.csv", cwd=tmp_path)

    options = ("--quiet", "--no-deps", "--offline", "--python", programs / "python")
    run(uv(), "pip", "install", *options, wheels[0], cwd=tmp_path)
    run(*uninstall, "swapproof-try", cwd=tmp_path)
    shown = refusal(programs / "swapproof", "--help", folder=tmp_path)
    assert "-m pip install --force-reinstall --no-deps swapproof-try==0." in shown
    assert shown.count("\n") == 1


@pytest.mark.slow
@pytest.mark.verify
@pytest.mark.timeout(TIMEOUT_S)
def test_a_first_answer_needs_three_seconds_beside_the_downloads(
    wheels: tuple[Path, Path], tmp_path: Path
) -> None:
    """CPU time, because other tests run at the same time."""
    (tmp_path / "pairs.csv").write_text(PAIRS)
    variables = {"UV_CACHE_DIR": str(tmp_path / "cache"), "UV_PYTHON": sys.executable}
    run(uv(), "venv", "--quiet", tmp_path / "downloads", cwd=tmp_path, **variables)
    python = tmp_path / "downloads/bin/python"
    options = ("--quiet", "--python", python)
    run(uv(), "pip", "install", *options, wheels[1], cwd=tmp_path, **variables)
    shutil.rmtree(tmp_path / "downloads")
    start = resource.getrusage(resource.RUSAGE_CHILDREN)

    uvx = Path(uv()).with_name("uvx")
    shown = run(
        uvx, "--from", wheels[1], "swapproof-try", "pairs.csv", cwd=tmp_path, **variables
    )

    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "80 questions are 80 items" in shown
    assert (end.ru_utime + end.ru_stime) - (start.ru_utime + start.ru_stime) <= MOST_CPU_S
