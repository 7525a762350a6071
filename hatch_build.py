"""Builds the wheel: moves the packages of the checkout below `swapproof`, rewrites their
imports, and adds the docs site. `swapproof-try` has its wheel's files from here too (ADR 0049).

In the checkout `harness`, `router`, `evals` and `dashboard` lie side by side. In site-packages
they would clash with a user's own `router.py` or another library's `evals`. So pyproject.toml
maps each folder to `swapproof/…`, and this hook rewrites the references to it: `from
harness.frame import errors` becomes `from swapproof.harness.frame import errors`. The hook
changes nothing else, and moves no line (ADR 0030).
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = ("harness", "router", "evals", "dashboard")
ROOT = Path(__file__).resolve().parent
# Its `source_modules` are the entries of swapproof-try; its `ignore_imports` lead out of it.
TRY_CONTRACT = "swapproof-try holds what its commands import, and needs few packages"
# A lazy command names its function as `module:attribute`.
ENTRY_POINT = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+:\w+")


class NamespaceHook(BuildHookInterface[BuilderConfig]):
    """Gives the wheel a rewritten copy of every Python file; editable installs need no copy."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self.copies = TemporaryDirectory(prefix="swapproof-wheel-")
        if version == "editable":
            return
        # In the wheel of swapproof-try, on which this one depends.
        own_exclude = self.build_config.target_config.setdefault("exclude", [])
        own_exclude += [f"/{file}" for file in list_try_files()]
        for file in self.build_config.builder.recurse_included_files():
            if file.path.endswith(".py"):
                copy = Path(self.copies.name, file.distribution_path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                source = Path(file.path).read_bytes()
                copy.write_bytes(below_package(source, "swapproof"))
                build_data["force_include"][str(copy)] = file.distribution_path
        if version == "standard":
            site = self.build_site(Path(self.root))
            build_data["force_include"][str(site)] = "swapproof/site"

    def build_site(self, root: Path) -> Path:
        """Builds the docs site without source maps and search data of other languages. Returns
        its folder.
        """
        site = Path(self.copies.name, "site")
        command = [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--quiet",
            "--site-dir",
            str(site),
        ]
        environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
        subprocess.run(command, cwd=root, env=environment, check=True)  # noqa: S603 - our own docs
        for file in site.rglob("*.map"):
            file.unlink()
        # Search data of other languages.
        shutil.rmtree(site / "assets" / "javascripts" / "lunr", ignore_errors=True)
        return site

    def finalize(
        self,
        version: str,  # noqa: ARG002 - hatchling's signature
        build_data: dict[str, Any],  # noqa: ARG002 - hatchling's signature
        artifact_path: str,  # noqa: ARG002 - hatchling's signature
    ) -> None:
        self.copies.cleanup()


def list_try_files() -> list[str]:
    """Lists the files of the checkout that the wheel of swapproof-try holds instead of ours."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = (one for one in contracts if one["name"] == TRY_CONTRACT)
    modules = find_modules(contract["source_modules"], contract["ignore_imports"])
    files = {find_file(module).relative_to(ROOT) for module in modules}
    folders = {folder for file in files for folder in file.parents if folder.name}
    packages = {folder / "__init__.py" for folder in folders}
    files |= {file for file in packages if (ROOT / file).is_file()}
    files |= {Path("swapproof/__init__.py"), Path("swapproof/py.typed")}
    return sorted(file.as_posix() for file in files)


def find_modules(entries: Iterable[str], doors: Collection[str]) -> set[str]:
    """Finds the entries and all of our modules that they import, also late.

    Args:
        doors: imports that are not followed, as `importer -> imported`.
    """
    found: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += [
                name for name in list_imports(module) if f"{module} -> {name}" not in doors
            ]
    return found


def list_imports(module: str) -> Iterator[str]:
    """Yields each of our modules that a module imports: `from a import b` may name a module
    `a.b`, or a name in `a`.
    """
    for node in ast.walk(ast.parse(find_file(module).read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module and is_ours(node.module):
            inner = [f"{node.module}.{name.name}" for name in node.names]
            modules = [name for name in inner if find_file(name).is_file()]
            yield from modules
            if len(modules) < len(inner):
                yield node.module


def find_file(module: str) -> Path:
    """Returns the file of a module in the checkout, or a path without a file."""
    file = ROOT / f"{module.replace('.', '/')}.py"
    return file if file.is_file() else file.with_suffix("") / "__init__.py"


def below_package(source: bytes, package: str) -> bytes:
    """Prefixes every reference to our packages in a source by the package's name.

    Raises ValueError for `import harness.x`, because its uses would need a prefix too.
    """
    prefix = f"{package}.".encode()
    lines = source.splitlines(keepends=True)
    for line, column in sorted(references(ast.parse(source), lines), reverse=True):
        lines[line] = lines[line][:column] + prefix + lines[line][column:]
    return b"".join(lines)


def references(tree: ast.Module, lines: list[bytes]) -> set[tuple[int, int]]:
    """Finds where names of our packages begin: the line, from 0, and the column in bytes."""
    positions = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), level=0) if is_ours(module):
                positions.add((node.lineno - 1, node.col_offset + len("from ")))
            case ast.Import(names=names):
                for name in names:
                    if is_ours(name.name):
                        if name.asname is None:
                            raise ValueError(f"line {node.lineno}: write `from … import …`")
                        positions.add((name.lineno - 1, name.col_offset))
            case ast.Constant(value=str(text)) if ENTRY_POINT.fullmatch(text):
                column = lines[node.lineno - 1].index(text.encode(), node.col_offset)
                positions.add((node.lineno - 1, column))
            case _:
                pass
    return positions


def is_ours(module: str) -> bool:
    return module.partition(".")[0] in PACKAGES
