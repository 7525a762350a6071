import ast
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy import licences
from swapproof import client as whole_client

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
# Those that ask of a user of the whole no more than a notice, and two more: see licences.md.
PERMISSIVE = re.compile(r"MIT|Apache|BSD|ISC|PSF|Python Software Foundation|MPL|Mozilla")
LGPL = {"psycopg", "psycopg-binary", "psycopg-pool"}


def release(
    folder: Path,
    root: Path = ROOT,
    **environment: str,
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - our own script
        ["/bin/sh", root / "deploy" / "release.sh", folder],
        env=os.environ | environment,
        capture_output=True,
        check=False,
        text=True,
    )


def test_the_list_of_licences_has_every_locked_package_as_it_is() -> None:
    written = read_list()

    assert written.keys() == set(licences.locked_packages()), (
        "write it anew: python -m deploy.licences"
    )
    for (name, _), text in written.items():
        if licences.NOT_READ not in {text, licences.licence(name)}:
            assert text == licences.licence(name)


def read_list() -> dict[tuple[str, str], str]:
    lines = re.findall(
        r"^- (.+): (\S+ \d.*)$",
        licences.FILE.read_text("utf-8"),
        re.MULTILINE,
    )
    return {
        (name, version): text
        for text, packages in lines
        for name, _, version in (package.partition(" ") for package in packages.split(", "))
    }


def packages_of_this_system() -> dict[str, str]:
    lines = licences.LOCK.read_text("utf-8").splitlines()
    wanted = [Requirement(line.rstrip("\\ ")) for line in lines if licences.LOCKED.match(line)]
    return {
        pinned.name: str(pinned.specifier).removeprefix("==")
        for pinned in wanted
        if pinned.marker is None or pinned.marker.evaluate()
    }


def test_no_package_comes_under_a_licence_that_nobody_weighed() -> None:
    known = {name: licences.licence(name) for name, _ in licences.locked_packages()}
    read = {name: text for name, text in known.items() if text != licences.NOT_READ}

    assert len(read) > 100
    assert {name for name, text in read.items() if not PERMISSIVE.search(text)} == LGPL


def test_the_workflow_runs_the_script_and_holds_no_token() -> None:
    text = WORKFLOW.read_text("utf-8")
    jobs: dict[str, Any] = yaml.safe_load(text)["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    scripts = [step["run"] for step in steps if "run" in step]

    assert "sh deploy/release.sh dist" in scripts
    assert ".ci/run" in scripts
    assert "secrets." not in text
    assert "password" not in text
    # A tag can be moved to other code, which then has the right to publish.
    used = [step["uses"] for step in steps if "uses" in step]
    assert [name for name in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name)] == []
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == "build"


def test_a_tag_that_is_not_the_version_is_no_release(tmp_path: Path) -> None:
    done = release(tmp_path, RELEASE_TAG="v99.0.0")

    assert done.returncode == 1
    assert "the tag is v99.0.0" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_tag_without_a_pass_of_verify_is_no_release(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for file in ("deploy/release.sh", ".ci/last_passed.py", "pyproject.toml"):
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, checkout / file)
    (checkout / ".ci/last_passed").write_text("")
    (checkout / ".venv").symlink_to(ROOT / ".venv")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]

    done = release(tmp_path / "out", checkout, RELEASE_TAG=f"v{version}")

    assert done.returncode == 1
    assert "make verify, part 1/1, is not noted in .ci/last_passed: run it" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.verify
@pytest.mark.timeout(1800)
def test_a_release_has_a_bill_of_materials_of_what_it_installs(tmp_path: Path) -> None:
    done = release(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr

    bill = json.loads((tmp_path / "swapproof.cdx.json").read_text("utf-8"))
    named: dict[str, Any] = {
        canonicalize_name(part["name"]): part for part in bill["components"]
    }
    installed = packages_of_this_system()
    assert len(installed) > 100
    assert {name: named[name]["version"] for name in installed} == installed
    assert sum(bool(part.get("licenses")) for part in named.values()) > 100
    assert bill["metadata"]["component"]["name"] == "swapproof"
    assert list(tmp_path.glob("swapproof-*.whl"))
    assert list(tmp_path.glob("swapproof-*.tar.gz"))
    assert list(tmp_path.glob("swapproof_client-*.whl"))
    assert list(tmp_path.glob("swapproof_try-*.whl"))
    lines = (tmp_path / "SHA256SUMS").read_text("utf-8").splitlines()
    sums = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    files = {file.name: file for file in tmp_path.iterdir() if file.name != "SHA256SUMS"}
    assert sums == {
        name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()
    }


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


@pytest.mark.req("B1", "G1")
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
    assert needed - sys.stdlib_module_names == {"aiohttp", "swapproof_client"}
    assert project(FOLDER)["dependencies"] == [
        word for word in project(ROOT)["dependencies"] if word.startswith("aiohttp")
    ]


def imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [str(node.module)]
    return [name.name for name in node.names] if isinstance(node, ast.Import) else []


@pytest.mark.req("B1", "G1")
def test_its_names_and_version_are_those_of_swapproof(hook: ModuleType) -> None:
    public = ast.parse(hook.wheel_files()["swapproof_client/__init__.py"])
    names = next(
        ast.literal_eval(node.value)
        for node in public.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )

    assert names == whole_client.__all__
    assert project(FOLDER)["version"] == project(ROOT)["version"]
