"""`swapgate-client` is the client of `swapgate` alone, from the same source."""

import ast
import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from swapgate import client as whole_client

pytestmark = pytest.mark.req("B1", "G1")
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "clients/python"
# What a few hundred lines of client may need of ours.
MOST_MODULES = 30


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("client_hook", FOLDER / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project(folder: Path) -> dict[str, Any]:
    found = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert isinstance(found, dict)
    return found


def test_the_wheel_holds_the_client_and_needs_aiohttp_alone(hook: ModuleType) -> None:
    files = hook.wheel_files()
    needed = {
        name.partition(".")[0]
        for place, source in files.items()
        if place.endswith(".py")
        for node in ast.walk(ast.parse(source))
        for name in imported_names(node)
    }

    assert len(hook.client_modules()) <= MOST_MODULES
    assert needed - sys.stdlib_module_names == {"aiohttp", "swapgate_client"}
    assert project(FOLDER)["dependencies"] == [
        word for word in project(ROOT)["dependencies"] if word.startswith("aiohttp")
    ]


def imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [str(node.module)]
    return [name.name for name in node.names] if isinstance(node, ast.Import) else []


def test_its_names_and_version_are_those_of_swapgate(hook: ModuleType) -> None:
    public = ast.parse(hook.wheel_files()["swapgate_client/__init__.py"])
    names = next(
        ast.literal_eval(node.value)
        for node in public.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )

    assert names == whole_client.__all__
    assert project(FOLDER)["version"] == project(ROOT)["version"]
