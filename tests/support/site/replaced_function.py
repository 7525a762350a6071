"""Runs stories in a copy of the checkout in which one function returns a constant.

A copy instead of a patch: a story may start programs, or build and install the wheel, and
these must have the constant too.
"""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
# A constant can make a story wait for its own limits.
STORY_S = 600
FAILED = 1
"""The exit code of pytest when tests ran, and some failed."""


def return_constant(source: str, name: str, constant: str) -> str:
    """Returns the module's source with the body of one function replaced.

    Args:
        name: of the function, with its class, as in `Breaker.admit`.
        constant: an expression.

    Raises ValueError if the module has no such function.
    """
    tree = ast.parse(source)
    body: Sequence[ast.stmt] = tree.body
    found: ast.AST = tree
    for part in name.split("."):
        found = next((node for node in body if getattr(node, "name", "") == part), tree)
        body = getattr(found, "body", ())
        if found is tree:
            raise ValueError(f"there is no function {name!r}")
    match found:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            found.body = ast.parse(f"return ({constant})").body
        case _:
            raise ValueError(f"{name!r} is no function")
    return ast.unparse(ast.fix_missing_locations(tree))


def copy_checkout(folder: Path) -> Path:
    """Copies the files that git tracks, and links the environment. Returns the copy."""
    copy = folder / "checkout"
    names = subprocess.run(
        ("git", "ls-files", "-z"),  # noqa: S607 - git of this machine
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy


@contextmanager
def replaced(checkout: Path, function: str, constant: str) -> Iterator[None]:
    """Lets one function of the checkout return a constant until the block ends.

    Args:
        function: its module and name, as in `router.request.breaker:Breaker.admit`.
    """
    module, name = function.split(":")
    file = checkout.joinpath(*module.split(".")).with_suffix(".py")
    if not file.exists():
        file = file.with_suffix("") / "__init__.py"
    source = file.read_text(encoding="utf-8")
    file.write_text(return_constant(source, name, constant), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(source, encoding="utf-8")


def run_stories(checkout: Path, stories: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Runs these tests of the checkout in a pytest of their own, all marks included."""
    own = {"SWAPPROOF_TEST_RUN", "PYTEST_ADDOPTS"}
    inherited = {k: v for k, v in os.environ.items() if k not in own and "XDIST" not in k}
    return subprocess.run(  # noqa: S603 - pytest, on names of tests/spine.yaml
        (
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            "spine",
            *stories,
        ),
        cwd=checkout,
        env=inherited | {"PYTHONPATH": str(checkout)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=STORY_S,
    )
