"""Builds the wheel of swapproof-try: the modules of the checkout that its commands import,
below `swapproof`. The wheel of swapproof leaves these files out, and depends on this one (ADR
0049).
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hatch_build import below_package, list_try_files  # noqa: E402 - the checkout's own, beside the sources

PACKAGE = "swapproof"


class TryHook(BuildHookInterface[BuilderConfig]):
    """Puts a rewritten copy of each file into the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            raise ValueError("swapproof-try has no editable form: install the checkout itself")
        self.copies = TemporaryDirectory(prefix="swapproof-try-")
        for place, source in wheel_files().items():
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
    """Returns the wheel's files: place to content."""
    return {
        file if file.startswith(f"{PACKAGE}/") else f"{PACKAGE}/{file}": below_package(
            (ROOT / file).read_bytes(), PACKAGE
        )
        for file in list_try_files()
    }
