"""Builds the wheel: moves the packages of the checkout below `swapgate`, rewrites their
imports, and adds the docs site.

In the checkout `harness`, `router`, `evals` and `dashboard` lie side by side. In site-packages
they would clash with a user's own `router.py` or another library's `evals`. So pyproject.toml
maps each folder to `swapgate/…`, and this hook rewrites the references to it: `from
harness.frame import errors` becomes `from swapgate.harness.frame import errors`. The hook
changes nothing else, and moves no line (ADR 0030).
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = ("harness", "router", "evals", "dashboard")
# A lazy command names its function as `module:attribute`.
ENTRY_POINT = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+:\w+")


class NamespaceHook(BuildHookInterface[BuilderConfig]):
    """Gives the wheel a rewritten copy of every Python file; editable installs need no copy."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self.copies = TemporaryDirectory(prefix="swapgate-wheel-")
        if version == "editable":
            return
        for file in self.build_config.builder.recurse_included_files():
            if file.path.endswith(".py"):
                copy = Path(self.copies.name, file.distribution_path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                source = Path(file.path).read_bytes()
                copy.write_bytes(below_package(source, "swapgate"))
                build_data["force_include"][str(copy)] = file.distribution_path
        if version == "standard":
            site = self.build_site(Path(self.root))
            build_data["force_include"][str(site)] = "swapgate/site"

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
