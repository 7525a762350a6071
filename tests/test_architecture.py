"""The house rules that no linter knows: who imports what, what is called how."""

import ast
import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from urllib.parse import urlsplit

import grimp

ROOT = Path(__file__).parent.parent
ROOMS = ("swapproof", "harness", "router", "evals", "dashboard", "migrations")

# The subjects that store records of their own.
RECORDED = (
    "frame/people",
    "frame/alerts",
    "providers",
    "routing",
    "evals",
    "proposals/labels",
    "agents",
    "operations",
    "proposals/labels",
)

# Vendor → the files and folders that may import it: its one door.
DOORS = {
    "aiohttp": (
        "router/upstream/",
        "harness/app/demo/",
        "harness/client/http.py",
    ),
    "alembic": ("harness/app/store/", "migrations/"),
    "altair": ("dashboard/",),
    "apprise": ("harness/app/apprise_sink.py",),
    "apscheduler": ("harness/frame/runtime/",),
    "fastapi": ("harness/interfaces/api/",),
    "inspect_ai": ("evals/",),
    "braintrust": ("evals/suites/hosted.py",),
    "langfuse": ("evals/suites/hosted.py",),
    "langsmith": ("evals/suites/hosted.py",),
    "opentelemetry": (
        "router/observers/tracing.py",
        "router/observers/otlp_outcomes.py",
        "harness/app/attach/otlp_receiver.py",
    ),
    "prometheus_client": (
        "harness/interfaces/api/health.py",
        "router/recording/metrics.py",
    ),
    "jsonschema": ("harness/frame/matching.py",),
    "litellm": ("router/upstream/translate/transport.py",),
    "httpx2": ("harness/agents/tool_servers.py",),
    "mcp": (
        "harness/interfaces/api/mcp.py",
        "harness/agents/tool_servers.py",
    ),
    "mcp_types": (
        "harness/interfaces/api/mcp.py",
        "harness/agents/tool_servers.py",
    ),
    "sqlalchemy": (
        "harness/app/store/",
        "harness/frame/database/",
        "harness/operations/listings.py",
        "harness/frame/records/",
        "harness/frame/signing/audit_log.py",
        "harness/frame/idempotency.py",
        *(f"harness/{subject}/records" for subject in RECORDED),
        "migrations/",
    ),
    "streamlit": ("dashboard/",),
}

# From the dashboard or the client down to the domain's smallest module. It may only shrink. The
# chain passes the store: use cases import its records as they are, without a protocol between.
LONGEST_CHAIN = 32

VAGUE = re.compile(r"^(utils?|helpers?|common|managers?|.*_(utils?|helpers?|manager))$")


@cache
def tracked_files() -> list[Path]:
    """What git knows, or would after `git add`: relative paths of files that exist."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return sorted(
        path for part in listing.split("\0") if (ROOT / (path := Path(part))).is_file()
    )


def python_files(*folders: str) -> list[Path]:
    return [f for f in tracked_files() if f.suffix == ".py" and f.parts[0] in folders]


@dataclass(frozen=True, slots=True)
class Source:
    """What the rules ask about a file, each with its line. Its tree is walked once."""

    imports: tuple[tuple[int, str], ...]
    """Each dotted module that the file imports, wherever in it, by any statement."""

    imported_from: tuple[tuple[int, str, str], ...]
    """(line, module, name) of each `from module import name`."""

    listings: tuple[int, ...]
    """The line of each attribute of this name."""

    marks: tuple[tuple[int, bool], ...]
    """(line, whether its arguments are requirement ids) of each `pytest.mark.req(…)`."""


@cache
def source(file: Path) -> Source:
    imports: list[tuple[int, str]] = []
    imported_from: list[tuple[int, str, str]] = []
    listings: list[int] = []
    marks: list[tuple[int, bool]] = []
    for node in ast.walk(ast.parse((ROOT / file).read_text(), filename=str(file))):
        match node:
            case ast.Attribute(attr="listings" | "lists"):
                listings.append(node.lineno)
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Attribute(value=ast.Name(id="pytest"), attr="mark"),
                    attr="req",
                ),
                args=args,
            ):
                marks.append(
                    (
                        node.lineno,
                        bool(args) and all(map(is_requirement, args)),
                    )
                )
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                imports.append((node.lineno, module))
            case ast.Import(names=names):
                imports += [(node.lineno, name.name) for name in names]
            case ast.ImportFrom(module=str(module), level=0, names=names):
                imports.append((node.lineno, module))
                imported_from += [(node.lineno, module, name.name) for name in names]
            case _:
                pass
    return Source(
        tuple(imports),
        tuple(imported_from),
        tuple(listings),
        tuple(marks),
    )


def test_no_chain_of_imports_is_longer_than_it_was() -> None:
    chain = longest_chain(imported_modules())

    assert len(chain) <= LONGEST_CHAIN, " →\n".join(chain)


def imported_modules() -> dict[str, set[str]]:
    """Each of our modules with those of ours that it imports, wherever in it."""
    graph = grimp.build_graph(
        *(room for room in ROOMS if room != "migrations"),
        exclude_type_checking_imports=True,
    )
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def longest_chain(imported: dict[str, set[str]]) -> list[str]:
    """The longest way from import to import; modules that import one another count as one."""
    while True:
        try:
            order = list(TopologicalSorter(imported).static_order())
            break
        except CycleError as error:
            one, *others = set(error.args[1])
            merged = set().union(*(imported.pop(name) for name in (one, *others)))
            imported[one] = merged - {one, *others}
            for name, targets in imported.items():
                if targets & set(others):
                    imported[name] = (targets - set(others) | {one}) - {name}
    chains: dict[str, list[str]] = {}
    for name in order:
        longest = max(
            (chains[target] for target in imported[name]),
            key=len,
            default=[],
        )
        chains[name] = [name, *longest]
    return max(chains.values(), key=len)


def test_each_vendor_has_one_door() -> None:
    trespassers = [
        f"{file}:{line} imports {module}, which belongs to {', '.join(doors)}"
        for file in python_files(*ROOMS)
        for line, module in source(file).imports
        if (doors := DOORS.get(module.split(".")[0]))
        if not file.as_posix().startswith(doors)
    ]

    assert not trespassers


def test_one_folder_speaks_litellms_admin_api() -> None:
    paths = ("/spend/logs", "/model/info", '/update"')
    folder = "harness/app/gateways"
    speakers = [
        file.as_posix()
        for file in python_files(*ROOMS)
        if any(path in (ROOT / file).read_text("utf-8") for path in paths)
    ]

    assert speakers == [f"{folder}/litellm_admin.py", f"{folder}/litellm_api.py"]


def test_only_the_first_migration_imports_something_of_ours() -> None:
    ours = [
        f"{file}:{line} imports {module}"
        for file in python_files("migrations")
        if "versions" in file.parts and file.name != "0001_schema.py"
        for line, module in source(file).imports
        if module.split(".")[0] in ROOMS
    ]

    assert not ours, "a migration must still run when our code has moved on"


def test_an_acceptance_story_imports_nothing_of_the_product() -> None:
    """Nor through what it shares with other tests: it sees the product from outside alone."""
    known = set(python_files("tests"))
    reached = {file for file in known if file.is_relative_to("tests/acceptance")}
    assert reached
    waiting = list(reached)
    while waiting:
        found = source(waiting.pop())
        names = {name for _, name in found.imports}
        names |= {f"{module}.{name}" for _, module, name in found.imported_from}
        modules = {Path(*name.split(".")) for name in names}
        further = {module.with_suffix(".py") for module in modules} & known - reached
        reached |= further
        waiting += further
    ours = [
        f"{file}:{line} imports {module}"
        for file in sorted(reached)
        for line, module in source(file).imports
        if module.split(".")[0] in ROOMS
    ]

    assert not ours


def test_no_name_is_vague() -> None:
    vague = [
        str(file)
        for file in python_files(*ROOMS, "tests", "benchmarks", "datasets")
        if any(VAGUE.match(part) for part in file.with_suffix("").parts)
    ]

    assert not vague, "say what the file is about"


def test_the_data_is_no_package() -> None:
    assert not list((ROOT / "datasets").rglob("__init__.py"))


def test_no_registry_is_named() -> None:
    """A host in a lock or a script would break it where another index is used."""
    # In pieces: this file is searched as well.
    hosts = {
        "pypi" + ".org",
        "files.python" + "hosted.org",
        "registry.npm" + "js.org",
    }
    for variable in (
        "PIP_INDEX_URL",
        "UV_DEFAULT_INDEX",
        "UV_INDEX_URL",
        "NPM_CONFIG_REGISTRY",
    ):
        host = urlsplit(os.environ.get(variable, "")).hostname
        hosts |= {host} if host else set()
    named = [
        f"{file} names {host}"
        for file in tracked_files()
        for host in hosts
        if host.encode() in (ROOT / file).read_bytes()
    ]

    assert not named


def test_the_locks_name_no_address() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        text = lock.read_text()

        assert "://" not in text, lock
        assert not re.search(r"(?m)^-", text), f"{lock} has an option"
        # Every package is pinned, and has a hash on its next line.
        pins = re.findall(r"(?m)^[a-z0-9].*$", text)
        assert pins
        assert all("==" in pin and pin.endswith("\\") for pin in pins), lock


def test_requirement_ids_are_a_letter_and_a_number() -> None:
    marks = [
        (f"{file}:{line}", is_right)
        for file in python_files("tests")
        for line, is_right in source(file).marks
    ]

    assert marks
    assert not [place for place, is_right in marks if not is_right]


def is_requirement(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=str(name)):
            return re.fullmatch(r"[A-Z][1-9]\d?", name) is not None
        case _:
            return False


# The modules that read what is shown to people.
SHOWN = ("proposal_rows", "queries", "route_queries")
# The declared operations, with their lists. Only interfaces import them.
DECLARED = ("operations",)
# The subjects that decide.
DECIDING = (
    "providers",
    "routing",
    "evals",
    "proposals",
    "canary",
    "agents",
    "operations",
)
# Who shows it, and decides nothing itself.
SHOWING = (
    "dashboard/",
    "harness/interfaces/api/",
    "harness/interfaces/cli/",
    "harness/app/store/store.py",
)


def test_nothing_that_decides_reads_what_is_shown() -> None:
    # A list for people goes on past a row that is not as it was signed. A decision must not.
    shown = [
        *(Path(f"harness/operations/{name}.py") for name in (*SHOWN, "listings", "context")),
        *(Path(f"harness/{subject}/operations.py") for subject in DECLARED),
    ]
    shown_modules = {
        *(f"harness.operations.{name}" for name in SHOWN),
        *(f"harness.{subject}.operations" for subject in DECLARED),
    }
    deciding = [
        file
        for file in python_files("harness")
        if file.parts[1] in DECIDING and file not in shown
    ]
    readers = [
        f"{file}:{line}"
        for file in python_files("harness", "dashboard", "router", "evals")
        if file not in shown and not file.as_posix().startswith(SHOWING)
        for line in source(file).listings
    ]
    importers = [
        f"{file}:{line}"
        for file in deciding
        for line, module in source(file).imports
        if module in shown_modules
    ]
    names = [
        f"{file}:{line}"
        for file in deciding
        for line, module, name in source(file).imported_from
        if f"{module}.{name}" in shown_modules
    ]
    assert not [
        *readers,
        *importers,
        *names,
    ]
