"""The wheel works outside the checkout, whatever a user's own modules are called (ADR 0030)."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from evals.scorers import SCORERS, scorer_identity
from hatch_build import PACKAGES, below_package
from tests.support.site.shared_wheel import shared_wheels

ROOT = Path(__file__).parents[2]
EXTRAS = ("authlib", "procrastinate", "opentelemetry-sdk")
# Whole minutes on a cold cache: about a hundred packages are downloaded.
TIMEOUT_S = 900
# What a user may have beside their script, or in site-packages.
THEIRS = "raise ImportError('a module of the user was imported for ours')\n"
# What needs neither processes of its own nor a database server.
SUITE = (
    "tests/unit",
    "tests/contract",
    "tests/integration/test_evals_runners.py",
    "tests/integration/test_migrations.py",
)
# They read the checkout's source files, its benchmarks or its generator of pages, and the wheel
# has none of these.
OF_THE_CHECKOUT = (
    "test_agent_files",
    "test_cli_start_up",
    "test_canarybench",
    "test_compiled_modules",
    "test_concerned_tests",
    "test_gate_decide_from",
    "test_last_passed",
    "test_mutants",
    "test_number_format",
    "test_pull_request_comment",
    "test_real_run_labels",
    "test_remembered_suites",
    "test_router_internal_errors",
    "test_stored_content",
)
CHOSEN = (
    "-q",
    "-m",
    "not (soak or postgres or verify or slow)",
    *(f"--ignore=tests/unit/{name}.py" for name in OF_THE_CHECKOUT),
)


def environment() -> dict[str, str]:
    """Of this process, without what would lead back to the checkout."""
    ours = ("PYTHON", "COVERAGE", "COV_", "SWAPPROOF", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def run(
    *command: str | Path,
    cwd: Path,
    **variables: str,
) -> str:
    done = subprocess.run(  # noqa: S603 - commands of this file
        command,
        cwd=cwd,
        env=environment() | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=2 * TIMEOUT_S,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def uv() -> str:
    found = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
    assert found is not None, "uv is missing: make setup"
    return found


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return shared_wheels(tmp_path_factory)


@pytest.fixture(scope="module")
def elsewhere(wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment `venv` that holds the locked packages and our wheels."""
    folder = tmp_path_factory.mktemp("elsewhere")
    python = folder / "venv/bin/python"
    install = (uv(), "pip", "install", "--quiet", "--python", python)
    run(
        uv(),
        "venv",
        "--quiet",
        "--python",
        sys.executable,
        folder / "venv",
        cwd=folder,
    )
    lock = ROOT / "requirements/runtime.lock"
    run(*install, "--require-hashes", "-r", lock, cwd=folder)
    # Of the extras, which the lock has for the images, as whoever installs none.
    run(
        uv(),
        "pip",
        "uninstall",
        "--quiet",
        "--python",
        python,
        *EXTRAS,
        cwd=folder,
    )
    run(*install, "--no-deps", "--offline", *wheels, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def borrowed(wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with our wheels alone, which sees this one's other packages.

    The checkout is not among them: a `.pth` file counts in an environment's own folder only.
    """
    return borrowing(wheels, tmp_path_factory.mktemp("borrowed"))


def borrowing(wheels: tuple[Path, ...], folder: Path) -> Path:
    python = folder / "venv/bin/python"
    run(
        uv(),
        "venv",
        "--quiet",
        "--python",
        sys.executable,
        folder / "venv",
        cwd=folder,
    )
    install = (
        uv(),
        "pip",
        "install",
        "--quiet",
        "--python",
        python,
        "--no-deps",
        "--offline",
    )
    run(*install, *wheels, cwd=folder)
    packages = site_packages(folder)
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (packages / "evals").mkdir()
    (packages / "evals/__init__.py").write_text(THEIRS)
    return python


def site_packages(folder: Path) -> Path:
    (found,) = folder.glob("venv/lib/python*/site-packages")
    return found


@pytest.fixture
def collisions(tmp_path: Path) -> Path:
    """A user's folder with modules of the names that our packages have in the checkout."""
    for name in ("router.py", "evals.py"):
        (tmp_path / name).write_text(THEIRS)
    for name in ("harness", "dashboard"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(THEIRS)
    return tmp_path


def test_references_to_our_packages_are_rewritten_and_nothing_else() -> None:
    source = (
        '"""Of harness.domain."""\n'
        "import sys, harness.gate as gate\n"
        "from harness.domain import (\n    errors,\n)\n"
        "from routers import router\n"
        "def f():\n    from evals.sim import serve  # from evals\n"
        'VERB = "harness.interfaces.cli.program:program"\n'
        'SETTING = "router.port"\n'
    )
    lines = below_package(source.encode(), "swapproof").decode().splitlines()

    assert lines == [
        '"""Of harness.domain."""',
        "import sys, swapproof.harness.gate as gate",
        "from swapproof.harness.domain import (",
        "    errors,",
        ")",
        "from routers import router",
        "def f():",
        "    from swapproof.evals.sim import serve  # from evals",
        'VERB = "swapproof.harness.interfaces.cli.program:program"',
        'SETTING = "router.port"',
    ]


def test_an_import_whose_uses_would_change_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2"):
        below_package(b"x = 1\nimport harness.domain\n", "swapproof")


@pytest.mark.slow
@pytest.mark.verify
@pytest.mark.timeout(TIMEOUT_S)
def test_init_and_doctor_run_with_the_locked_packages(elsewhere: Path, tmp_path: Path) -> None:
    swapproof = elsewhere / "venv/bin/swapproof"

    run(swapproof, "init", cwd=tmp_path)
    run(swapproof, "doctor", cwd=tmp_path)


def test_swapproof_is_the_only_name_at_top_level(
    wheels: tuple[Path, Path], tmp_path: Path
) -> None:
    for wheel in wheels:
        shutil.unpack_archive(wheel, tmp_path, "zip")
    ours = tmp_path / "swapproof"

    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".dist-info"} == {
        "swapproof"
    }
    assert files_of(ours / "migrations") == files_of(ROOT / "migrations")
    of_benchmarks = {f for f in files_of(ROOT / "datasets") if f.parts[0] == "gatebench"}
    assert files_of(ours / "datasets") == files_of(ROOT / "datasets") - of_benchmarks
    assert (ours / "config/default.yaml").read_bytes() == (
        ROOT / "config/default.yaml"
    ).read_bytes()
    for name in PACKAGES:
        assert files_of(ours / name) == files_of(ROOT / name)
    markdown = {file for file in files_of(ROOT / "docs") if file.suffix == ".md"}
    assert {file for file in files_of(ours / "docs") if file.suffix == ".md"} == markdown
    built = {file.with_suffix(".md") for file in files_of(ours / "site")}
    assert markdown <= built
    assert (ours / "py.typed").exists()


def files_of(folder: Path) -> set[Path]:
    return {
        file.relative_to(folder)
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


@pytest.mark.req("B1")
def test_the_client_meets_no_module_of_the_user(borrowed: Path, collisions: Path) -> None:
    script = collisions / "script.py"
    script.write_text(
        "import swapproof, sys\n"
        "client = swapproof.ModelClient.over_http('http://127.0.0.1:9', 'sk-sg-any')\n"
        "client.close()\n"
        "print(swapproof.__file__)\n"
        "print(sorted({'sqlalchemy', 'litellm', 'inspect_ai', 'numpy'} & set(sys.modules)))\n"
    )
    file, heavy = run(borrowed, script, cwd=collisions).splitlines()

    assert Path(file).is_relative_to(borrowed.parents[1])
    assert heavy == "[]"


@pytest.mark.req("F6")
def test_a_scorer_has_the_same_identity_in_a_wheel_as_in_the_checkout(
    borrowed: Path, tmp_path: Path
) -> None:
    script = (
        "from swapproof.evals.scorers import SCORERS, scorer_identity\n"
        "print([scorer_identity(scorer, {}) for scorer in SCORERS.values()])"
    )

    printed = run(borrowed, "-c", script, cwd=tmp_path)

    assert printed.strip() == str([scorer_identity(one, {}) for one in SCORERS.values()])


@pytest.mark.slow
@pytest.mark.verify
@pytest.mark.timeout(2 * TIMEOUT_S)
def test_the_suite_passes_against_the_wheel(borrowed: Path, tmp_path: Path) -> None:
    copy_suite(tmp_path)
    run(borrowed, "-m", "pytest", *CHOSEN, *SUITE, cwd=tmp_path)


def copy_suite(folder: Path) -> None:
    for file in (ROOT / "tests").rglob("*"):
        copy = folder / file.relative_to(ROOT)
        if file.is_dir() or {"__pycache__", "node_modules"} & set(file.parts):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".py":
            copy.write_bytes(patched_names(below_package(file.read_bytes(), "swapproof")))
        else:
            copy.symlink_to(file)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ("config", "datasets", "docs"):
        (folder / name).symlink_to(ROOT / name)


def patched_names(source: bytes) -> bytes:
    """`monkeypatch.setattr("harness.…")` names a module as well, and so do the programs in
    strings that tests run in a process of their own.
    """
    names = "|".join(PACKAGES).encode()
    patched = re.sub(rb'(setattr\(\s*")((?:' + names + rb")\.)", rb"\1swapproof.\2", source)
    # In a string a line may begin right behind the n of its `\n`.
    imports = rb"(?:\b|(?<=\\n))((?:from|import) )((?:" + names + rb")\b)"
    return re.sub(imports, rb"\1swapproof.\2", patched)
