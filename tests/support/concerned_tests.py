"""Selects and runs the tests that concern the changes since a commit (`make test-changed`).

A test module reaches files through imports, through the fixtures that it requests from a
conftest.py, and through strings: a module's name counts as an import, and the path of a file or
folder means that the code reads it. A test that starts a process reaches the whole product. A
change of `EVERY_TEST`, or of a file that no test reaches, concerns every test.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

from tests.support.module_mentions import Part

ROOT: Final = Path(__file__).parents[2]
# An installed Swapproof without `docs/`: a test about a page that it shows names the page.
PRODUCT: Final = re.compile(
    "(swapproof|harness|router|evals|dashboard|migrations|datasets|config)/|hatch_build.py$"
)
# They decide how tests run, or which.
EVERY_TEST: Final = re.compile(
    r"(.*/)?conftest\.py$|pyproject\.toml$|requirements/|tests/support/(concerned_tests|module_mentions)\.py$"
)
# They start other programs alone: Git, databases, a browser, `mount`.
STARTS_NO_PRODUCT: Final = re.compile(
    r"tests/(support/(store/(pgbouncer|postgres\w*)|browser/chromium|site/small_disk)"
    r"|(support|unit)/(test_)?concerned_tests)\.py"
)
# Product code that names one of these folders reads all its files.
READ_WHOLE: Final = re.compile("(migrations|datasets)/")


class ConcernedTests:
    """The test modules of a checkout. files: its files in Git, and deleted ones."""

    def __init__(self, root: Path, files: Iterable[str]) -> None:
        paths = sorted(file for file in files if file.endswith(".py"))
        self.tests = [path for path in paths if re.match(r"tests/(.*/)?test_\w+\.py", path)]
        self._files = {
            re.sub(r"(/__init__)?\.py$", "", path).replace("/", "."): path for path in paths
        }
        self._parts: dict[str, Part] = {}  # by path; `path::name` for a definition
        for path in paths:
            source = (root / path).read_bytes() if (root / path).exists() else b""
            self._add(path, ast.parse(source).body)
        self._next = cache(self._list_next)

    def _add(self, path: str, statements: list[ast.stmt]) -> None:
        if not path.endswith("conftest.py"):
            self._parts[path] = Part(*statements)
            return
        imports = [one for one in statements if isinstance(one, ast.Import | ast.ImportFrom)]
        definitions = {
            f"{path}::{one.name}": one
            for one in statements
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not one.name.startswith("pytest_")
            and "autouse" not in ast.unparse(one)
        }
        always = [one for one in statements if one not in [*imports, *definitions.values()]]
        self._parts[path] = Part(*always)
        self._parts[path].texts.clear()  # hooks look for loaded modules by name
        self._parts.update((key, Part(one)) for key, one in definitions.items())
        bound = Part(*imports).imported
        for part in (self._parts[key] for key in (path, *definitions)):
            part.imported.update((name, bound[name]) for name in part.used & bound.keys())

    def _list_next(self, key: str) -> set[str]:
        path = PurePosixPath(key.partition("::")[0])
        part = self._parts[key]
        package = str(path.parent).replace("/", ".")
        # A command line names the modules of its commands as `.canary:group`.
        named = {f"{package}{name}" if name[:1] == "." else name for name in part.modules}
        modules = {above for name in named & self._files.keys() for above in _up(name)}
        found = {self._files[name] for name in modules & self._files.keys()}
        # Streamlit loads the pages by their paths, which `dashboard.main` builds.
        if "streamlit.testing.v1" in part.modules:
            found |= {file for file in self._files.values() if file.startswith("dashboard/")}
        if not path.name.startswith(("test_", "conftest")):
            return found
        names = part.requested | (part.used if path.name == "conftest.py" else set())
        if part.attributes & {"getfixturevalue", "usefixtures"}:
            names |= part.texts
        for folder in path.parents:
            conftest = f"{folder}/conftest.py"
            found |= {conftest, *(f"{conftest}::{name}" for name in names)} & self._parts.keys()
        return found

    def reach(self, test: str) -> set[str]:
        """Returns the paths, and the definitions in a conftest.py, that a test reaches."""
        reached = {test}
        new = {test}
        while new:
            new = set[str]().union(*map(self._next, new)) - reached
            reached |= new
        return reached

    def select(self, changed: Collection[str]) -> tuple[list[str], str]:
        """Returns test modules. If they are all of them, also says why."""
        selected: set[str] = set()
        reached = {test: self.reach(test) for test in self.tests}
        starters = {
            key
            for key, part in self._parts.items()
            if key.startswith("tests/")
            and part.starts_process
            and not STARTS_NO_PRODUCT.match(key)
        }
        for path in sorted(changed):
            if EVERY_TEST.match(path):
                return self.tests, f"{path} decides how tests run"
            readers = [
                key
                for key, part in self._parts.items()
                if part.names(path)
                or (
                    (key.startswith("tests/") or READ_WHOLE.match(path))
                    and part.names_folder(path)
                )
            ]
            aims = {path, *readers, *(starters if PRODUCT.match(path) else ())}
            concerned = {test for test in self.tests if not aims.isdisjoint(reached[test])}
            if not concerned:
                return self.tests, f"no test reaches {path}"
            selected |= concerned
        return sorted(selected), ""


def _up(module: str) -> list[str]:
    """A module and its packages, which Python imports first."""
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def list_changes(since: str) -> tuple[str, list[str]]:
    """Returns the commit, and the files that differ from it, also new and deleted ones.

    Args:
        since: empty for the commit at which this branch left origin/main.

    Raises CalledProcessError for an unknown commit.
    """
    if not since:
        base = subprocess.run(
            ["git", "merge-base", "origin/main", "HEAD"],  # noqa: S607 - Git from PATH
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        since = base.stdout.strip() or "HEAD"
    return since, [*_git("diff", "--name-only", "--no-renames", "-z", since), *_list_new()]


def _list_new() -> list[str]:
    return _git("ls-files", "--others", "--exclude-standard", "-z")


def _git(*words: str) -> list[str]:
    done = subprocess.run(  # noqa: S603 - words of this file, and a commit
        ["git", *words],  # noqa: S607 - Git from PATH
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.split("\0")[:-1]


def main(since: str, *options: str) -> int:
    """Runs pytest with `options` on the selected modules. Returns its exit code."""
    commit, changed = list_changes(since)
    if not changed:
        sys.stdout.write(f"nothing has changed since {commit}\n")
        return 0
    tests = ConcernedTests(ROOT, {*_git("ls-files", "-z"), *changed})
    selected, reason = tests.select(changed)
    because = f", because {reason}" if reason else ""
    sys.stdout.write(
        f"{len(changed)} files differ from {commit}; {len(selected)} of {len(tests.tests)} "
        f"test modules concern them{because}\n"
    )
    sys.stdout.flush()
    modules = [module for module in selected if (ROOT / module).exists()]
    if not modules:
        return 0  # without a module, pytest would run every test
    return subprocess.call([sys.executable, "-m", "pytest", "-q", *options, *modules])  # noqa: S603 - our own tests


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
