"""Builds the wheel of swapproof-client: the modules of the client and what they import, out of
the one source that `swapproof` is built from, below `swapproof_client`.

The modules are found by their imports from `harness.client.sync_client` on. The router within a
process (`in_process`) stays out: it is what makes `swapproof` large.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hatch_build import below_package, find_file, find_modules  # noqa: E402 - the checkout's own, beside the sources

PACKAGE = "swapproof_client"
FIRST = "harness.client.sync_client"
LEFT_OUT = frozenset({"harness.client.async_client -> harness.client.in_process"})


class ClientHook(BuildHookInterface[BuilderConfig]):
    """Puts a rewritten copy of each module of the client into the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            raise ValueError(
                "swapproof-client has no editable form: install the checkout itself"
            )
        self.copies = TemporaryDirectory(prefix="swapproof-client-")
        for place, source in sorted(wheel_files().items()):
            copy = Path(self.copies.name, place)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source)
            build_data["force_include"][str(copy)] = place

    def finalize(
        self,
        version: str,  # noqa: ARG002 - hatchling's signature
        build_data: dict[str, Any],  # noqa: ARG002 - hatchling's signature
        artifact_path: str,  # noqa: ARG002 - hatchling's signature
    ) -> None:
        self.copies.cleanup()


def wheel_files() -> dict[str, bytes]:
    """What is in the wheel: place to content."""
    public = (ROOT / "swapproof/client.py").read_bytes()
    files = {
        f"{PACKAGE}/__init__.py": below_package(public, PACKAGE),
        f"{PACKAGE}/py.typed": b"",
    }
    for module in client_modules():
        file = find_file(module)
        place = f"{PACKAGE}/{file.relative_to(ROOT).as_posix()}"
        files[place] = below_package(file.read_bytes(), PACKAGE)
        for folder in file.relative_to(ROOT).parents:
            if folder.name:
                files.setdefault(f"{PACKAGE}/{folder.as_posix()}/__init__.py", b"")
    return files


def client_modules() -> set[str]:
    """Finds the client's modules, and all of ours that they import."""
    return find_modules([FIRST], LEFT_OUT)
