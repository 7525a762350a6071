"""A copy of this checkout whose direct path is compiled by mypyc, in one shared library.

mypyc 2.4.1 takes most modules as they are. What it does not take, or compiles to something slow
or wrong, is changed in the copy first: `compiled.patch`, and the `__init__` of dataclasses.
"""

import ast
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
MODULES: Final = Path(__file__).with_name("compiled_modules.txt")
PATCH: Final = Path(__file__).with_name("compiled.patch")
GROUP: Final = "direct_path"
LIBRARY: Final = f"{GROUP}__mypyc"
_COPIED: Final = ("harness", "router")
_LEFT_OUT: Final = ("build", "dist", "site")
_SUFFIX: Final = sysconfig.get_config_var("EXT_SUFFIX")


def modules() -> list[str]:
    """The modules that are compiled, as paths from the checkout's root."""
    return MODULES.read_text(encoding="utf-8").split()


def built(folder: Path) -> int:
    """Copies this checkout into `folder` and compiles it there. Returns how many modules.

    Exits where something is missing, or where a source is no longer as it is expected.
    """
    if importlib.util.find_spec("setuptools") is None:
        sys.exit("mypyc needs setuptools (.venv/bin/uv pip install setuptools)")
    for tool in ("gcc", "git"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not on PATH (apt-get install {tool})")
    _copy(folder)
    # Within another repository, git would leave out what is not of it.
    alone = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    _run(["git", "-C", str(folder), "apply", str(PATCH)], alone)
    names = modules()
    for name in names:
        path = folder / name
        path.write_text(with_init(path.read_text(encoding="utf-8")), encoding="utf-8")
    with contextlib.chdir(folder):
        _compile(names)
    return len(names)


def with_init(text: str) -> str:
    """Writes out the `__init__` of each dataclass with slots: the interpreter runs the one that
    `dataclass` makes.
    """
    lines = text.splitlines()
    for node in reversed(ast.parse(text).body):
        if not isinstance(node, ast.ClassDef) or not node.decorator_list:
            continue
        decorator = ast.unparse(node.decorator_list[0])
        if not decorator.startswith("dataclass(") or "slots=True" not in decorator:
            continue
        frozen = "frozen=True" in decorator
        fields = [member for member in node.body if isinstance(member, ast.AnnAssign)]
        end = fields[-1].end_lineno or 0
        lines[end:end] = _init(node, fields)
        for field in fields:
            if field.value is not None:
                bare = f"    {ast.unparse(field.target)}: {ast.unparse(field.annotation)}"
                stop = field.end_lineno or 0
                lines[field.lineno - 1 : stop] = [bare, *[""] * (stop - field.lineno)]
        at = node.decorator_list[0].lineno - 1
        lines[at] = f"@dataclass(init=False{', unsafe_hash=True' if frozen else ''})"
    return "\n".join(lines) + "\n"


def _init(node: ast.ClassDef, fields: list[ast.AnnAssign]) -> list[str]:
    heads, sets = [], []
    for field in fields:
        name, kind = ast.unparse(field.target), ast.unparse(field.annotation)
        value = ast.unparse(field.value) if field.value is not None else None
        if value is None:
            heads.append(f"{name}: {kind}")
            sets.append(f"self.{name} = {name}")
        elif value == "field(init=False)":
            # `replace` passes it.
            heads.append(f"{name}: object = None")
        elif value.startswith("field(default_factory="):
            made = value.removeprefix("field(default_factory=").removesuffix(")")
            heads.append(f"{name}: {kind} | None = None")
            sets.append(f"self.{name} = {made}() if {name} is None else {name}")
        else:
            heads.append(f"{name}: {kind} = {value}")
            sets.append(f"self.{name} = {name}")
    methods = [member.name for member in node.body if isinstance(member, ast.FunctionDef)]
    if "__post_init__" in methods:
        sets.append("self.__post_init__()")
    head = ", ".join(["self", *heads])
    return ["", f"    def __init__({head}) -> None:", *(f"        {line}" for line in sets)]


def _copy(folder: Path) -> None:
    """What is not compiled is linked to."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in ROOT.iterdir():
        target = folder / place.name
        if place.name in _COPIED:
            shutil.rmtree(target, ignore_errors=True)
            ignored = shutil.ignore_patterns("__pycache__", f"*{_SUFFIX}")
            shutil.copytree(place, target, ignore=ignored)
        elif not place.name.startswith(".") and place.name not in _LEFT_OUT:
            target.unlink(missing_ok=True)
            target.symlink_to(place)


def _compile(names: list[str]) -> None:
    """In the working directory. mypyc exits, with its errors, where it cannot."""
    # It takes a second to import, which those who only read the list need not wait for.
    from mypyc.build import mypycify  # noqa: PLC0415

    place = Path("build/mypyc")
    flags = ["--no-warn-unused-ignores", "--no-warn-redundant-casts", "--cache-dir=build/mypy"]
    extensions = mypycify(
        [*flags, *names], separate=[(names, GROUP)], multi_file=True, target_dir=str(place)
    )
    include = f"-I{sysconfig.get_path('include')}"
    compiler = ["gcc", "-fPIC", "-O3", "-DNDEBUG", "-fwrapv", "-w", include]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        linked = []
        for extension in extensions:
            paths = [f"-I{folder}" for folder in extension.include_dirs]
            objects = []
            for source in extension.sources:
                target = str(Path(source).with_suffix(".o"))
                command = [*compiler, *paths, "-c", source, "-o", target]
                objects.append((target, pool.submit(_run, command)))
            library = "/".join(extension.name.split(".")) + _SUFFIX
            linked.append((library, objects))
        for library, objects in linked:
            for _, done in objects:
                done.result()
            _run(["gcc", "-shared", *(target for target, _ in objects), "-o", library])


def _run(command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-6000:]}")
