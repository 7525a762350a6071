"""Databases and hypothesis profiles for all tests."""

import functools
import gc
import itertools
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.support.store.postgres import Postgres

# A run starts hundreds of processes; without kept bytecode each would compile thousands of
# modules anew. Containers often forbid keeping it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell starts its background jobs with Ctrl-C ignored, and so would the tests' processes be.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Thousands of small databases are written and thrown away: in memory, where there is room.
MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes its own folder in it
ROOM_BYTES = 4 << 30
# Folders whose tests on PostgreSQL are left to `make verify`, unless they say otherwise.
SAMPLED = {"contract", "integration"}
# Folders whose tests take longer than those of the others; `make test` has those of the spine.
LONGER = {"acceptance", "browser", "integration", "simulation"}
# Modules of these names draw whole pages of the dashboard, which takes seconds a page.
PAGES = ("test_dashboard_", "test_resource_page")
TIERS = ("quick", "rest")
TESTS = Path(__file__).parent


def has_room(folder: Path) -> bool:
    """Whether a whole run fits into it, scripts may run there, and nobody chose another."""
    return (
        "TMPDIR" not in os.environ
        and folder.is_dir()
        and os.access(folder, os.W_OK)
        and not os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0)
        and shutil.disk_usage(folder).free > ROOM_BYTES
    )


if has_room(MEMORY):
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None

# Nine seconds of a worker's collection were spent on looking for garbage among modules.
gc.disable()
# A test makes and drops more objects than a process that serves: with Python's own thresholds
# a twentieth of the tests' CPU was spent on looking for garbage.
COLLECT_AFTER = (50_000, 20, 50)

# Names the test run in the environment, so that its worker processes share one server.
RUN = "SWAPPROOF_TEST_RUN"

# A deadline, or "too slow", would make a result depend on the machine's load.
settings.register_profile(
    "dev",
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "ci",
    settings.get_profile("dev"),
    derandomize=True,
    print_blob=True,
)
settings.register_profile("verify", settings.get_profile("dev"), max_examples=300)
in_ci = os.environ.get("CI") == "true"
settings.load_profile(os.environ.get("SWAPPROOF_HYPOTHESIS", "ci" if in_ci else "dev"))


def pytest_configure() -> None:
    os.environ.setdefault(RUN, uuid.uuid4().hex[:12])


def pytest_collection_finish() -> None:
    """Look for garbage again, but not among the modules and tests, which all stay."""
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()
    if "streamlit.testing.v1" in sys.modules:
        remember_installed_components()
    if "sqlalchemy" in sys.modules:
        from tests.support.store.shared_statements import share_statements  # noqa: PLC0415 - few runs need no database

        share_statements()
    if "harness.app" in sys.modules or "evals.suites" in sys.modules:
        from tests.support.evals.remembered_suites import remember_suites  # noqa: PLC0415 - few runs need no suite

        remember_suites()
    if "httpx" in sys.modules:
        from tests.support.site.patient_clients import wait_patiently  # noqa: PLC0415 - few runs need no HTTP
        from tests.support.site.shared_certificates import share_certificates  # noqa: PLC0415 - as above

        share_certificates()
        wait_patiently()


def remember_installed_components() -> None:
    """Look for components of Streamlit once.

    Each AppTest reads the metadata of all installed distributions, which takes more CPU than
    the page under test; Streamlit's server does so once, when it starts.
    """
    from streamlit.components.v2 import manifest_scanner  # noqa: PLC0415 - few runs need Streamlit

    manifest_scanner.scan_component_manifests = functools.cache(
        manifest_scanner.scan_component_manifests
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    # A test that imports the control plane has the module; the others need no worlds.
    if worlds := sys.modules.get("tests.support.control.remembered_worlds"):
        worlds.MEMORY.allow_for(frozenset(getattr(item, "fixturenames", ())))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how long the tests of each folder took, and how long those of the spine."""
    taken_s: defaultdict[str, float] = defaultdict(float)
    numbers: Counter[str] = Counter()
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            folder = report.nodeid.split("/")[1].split("::")[0].removesuffix(".py")
            tier = "spine" if "spine" in report.keywords else folder
            taken_s[tier] += report.duration
            numbers[tier] += report.when == "call"
    for tier in sorted(taken_s, key=taken_s.__getitem__, reverse=True)[:6]:
        line = f"{tier}: {numbers[tier]} tests, {taken_s[tier]:.0f} s of workers"
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Workers come and go; the process that started them ends the server."""
    if commands := sys.modules.get("tests.support.site.forked_commands"):
        commands.end_templates()
    if postgres_folder().exists() and not hasattr(config, "workerinput"):
        from tests.support.store.postgres import stop_server  # noqa: PLC0415 - the package is for Linux only

        stop_server(postgres_folder())


def postgres_folder() -> Path:
    # Not in pytest's own folder: that is closed to the user that PostgreSQL runs as when
    # the tests run as root.
    return Path(tempfile.gettempdir()) / f"swapproof-postgres-{os.environ[RUN]}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--requirements",
        action="store_true",
        help="with --collect-only: list the tests of each requirement id",
    )
    parser.addoption(
        "--tier",
        choices=TIERS,
        help="the tests of `make test`, or the rest, which `make test-all` runs as well",
    )


def takes_long(file: Path) -> bool:
    return bool(LONGER & folders_of(file)) or file.name.startswith(PAGES)


def folders_of(file: Path) -> set[str]:
    """The folders within `tests`: the checkout itself may be in one called `integration`."""
    return set(file.parts[len(TESTS.parts) : -1])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file of which the tier runs no test."""
    file = collection_path
    if not file.name.startswith("test_") or config.getoption("--tier") is None:
        return None
    if config.getoption("--tier") == "rest":
        return not takes_long(file) or None
    return (takes_long(file) and "mark.spine" not in file.read_text("utf-8")) or None


def choose_by_tier(config: pytest.Config, items: list[pytest.Item]) -> None:
    tier = config.getoption("--tier")
    if tier is None:
        return
    left_out = [
        item
        for item in items
        if (takes_long(item.path) and not item.get_closest_marker("spine")) is (tier == "quick")
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def pytest_report_collectionfinish(
    config: pytest.Config, items: list[pytest.Item]
) -> list[str]:
    if not config.getoption("--requirements"):
        return []
    proofs: dict[tuple[str, int], set[str]] = {}
    for item in items:
        for mark in item.iter_markers("req"):
            for arg in mark.args:
                proofs.setdefault((arg[0], int(arg[1:])), set()).add(item.nodeid.split("[")[0])
    return [
        line
        for (letter, number), tests in sorted(proofs.items())
        for line in (
            f"{letter}{number}: {len(tests)} tests",
            *(f"  {t}" for t in sorted(tests)),
        )
    ]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    mark_by_database(items)
    choose_by_tier(config, items)
    yield  # pytest leaves out what -m does not want
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        items[:] = longest_first(items, workers)


def longest_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """The order in which no worker still has a long test to do when the others are done.

    xdist gives each worker one block of the list, and later moves tests from a block's end:
    each block starts with its share of the slow modules, then of those that start processes
    or use a database, and ends with the quick tests.
    """
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    slow = [m for m in modules.values() if any(i.get_closest_marker("slow") for i in m)]
    taken = {tests[0].path for tests in slow}
    middle = [m for p, m in modules.items() if p not in taken and LONGER & folders_of(p)]
    taken |= {tests[0].path for tests in middle}
    quick = [item for item in items if item.path not in taken]
    blocks: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for number, tests in enumerate([*slow, *middle]):
        blocks[number % workers] += tests
    wanted = len(items) // workers
    for block in blocks[:-1]:
        missing = max(0, wanted - len(block))
        block.extend(quick[:missing])
        del quick[:missing]
    blocks[-1].extend(quick)
    return [item for block in blocks for item in block]


def mark_by_database(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        params = getattr(getattr(item, "callspec", None), "params", {})
        asked = {"postgres"} & set(fixtures)
        if asked or any("postgres" in param for param in params.values() if type(param) is str):
            item.add_marker(pytest.mark.postgres)
        # The promise, and what each database does in its own way, is held on both in every
        # run; the rest is the same code, whose statements test_query_plans sends to both.
        if (
            "postgresql" in [param for param in params.values() if type(param) is str]
            and SAMPLED & folders_of(item.path)
            and not item.get_closest_marker("both_databases")
        ):
            item.add_marker(pytest.mark.verify)


@pytest.fixture(autouse=True, scope="session")
def loggers_without_caches() -> Iterator[None]:
    """Lets every logger follow the present configuration. A logger that keeps its processors
    escapes `capture_logs` once another test of this process has set up the logs anew.
    """
    configure = structlog.configure

    def configure_without_caches(**given: Any) -> None:
        configure(**given | {"cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", configure_without_caches)
        yield


@pytest.fixture(scope="session")
def postgres() -> "Postgres":
    if sys.platform != "linux":
        pytest.skip("PostgreSQL for the tests is installed on Linux only")
    from harness.app.store.migrate import upgrade  # noqa: PLC0415 - not every test needs a store
    from tests.support.store.postgres import join  # noqa: PLC0415 - the package is for Linux only

    return join(postgres_folder(), upgrade)


@pytest.fixture
def postgres_url(postgres: "Postgres") -> Iterator[str]:
    with postgres.migrated_database() as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres: "Postgres") -> Iterator[str]:
    with postgres.empty_database() as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied; nobody has it open."""
    from tests.support.store.sqlite_store import migrated_file  # noqa: PLC0415 - not every test needs a store

    file = tmp_path_factory.mktemp("sqlite") / "template.db"
    file.write_bytes(migrated_file())
    return file


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    file = shutil.copyfile(sqlite_template, tmp_path / "swapproof.db")
    return f"sqlite:///{file}"


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'empty.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    name = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    url = request.getfixturevalue(name)
    assert isinstance(url, str)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    name = {
        "sqlite": "empty_sqlite_url",
        "postgresql": "empty_postgres_url",
    }[request.param]
    url = request.getfixturevalue(name)
    assert isinstance(url, str)
    return url
