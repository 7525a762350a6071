import ast
import fnmatch
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compile_modules import write_inits
from hatch_build import COMPILER

ROOT = Path(__file__).parents[2]
# Whoever waits in these waits within a handler, in compiled code.
WAITS = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
# Leaving it waits for nothing, so that no other task runs while it handles an exception.
LEFT_AT_ONCE = "asyncio.timeout"
# What the modules do that a compiler might take otherwise.
SAMPLE = """\
import asyncio
from dataclasses import dataclass, field, replace

from mypy_extensions import mypyc_attr


@dataclass(frozen=True, slots=True)
class Kept:
    name: str
    # In order.
    seen: list["str"] = field(default_factory=list)
    size: int = 3
    twice: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "twice", 2 * self.name)


@mypyc_attr(native_class=False)
@dataclass(frozen=True)
class Referable:
    name: str


class Held:
    __deletable__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def drop(self) -> None:
        del self._name


async def share(number: int, seen: list[str]) -> str:
    result: str
    fault: BaseException | None = None
    try:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
            result = replace(Kept("a"), name=str(10 // number)).twice
    except BaseException as error:
        fault = error
    for _ in range(3):
        await asyncio.sleep(0)
    seen.append(f"closed {number}")
    if fault is not None:
        try:
            raise fault
        finally:
            fault = None
    return result


async def share_or_more(number: int, seen: list[str]) -> str:
    failed = False
    try:
        return await share(number, seen)
    except ZeroDivisionError as error:
        seen.append(str(error))
        failed = True
    return await share(number + 1, seen) if failed else ""
"""
RUN = """\
import asyncio, sys, weakref
import swapgate.sample as sample

async def main():
    seen = []
    works = [f(n, seen) for n in (0, 5, 0) for f in (sample.share, sample.share_or_more)]
    results = await asyncio.gather(*works, return_exceptions=True)
    return seen, [str(result) for result in results], sys.exc_info()

held, referable = sample.Held("a"), sample.Referable("a")
held.drop()
print(sample.__file__.rpartition(".")[2])
print(asyncio.run(main()), weakref.ref(referable)().name)
print(sample.Kept("b"), sample.Kept("b", ["c"], size=4), sample.Kept("b") == sample.Kept("b"))
try:
    sample.Kept("b").size = 5
except AttributeError as error:
    print(type(error).__name__)
"""


def settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def compiled_modules() -> list[str]:
    hooks = settings()["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    names: list[str] = hooks["custom"]["compiled"]
    return names


def miscompiled(tree: ast.AST) -> list[int]:
    """The lines at which compiled code would lose an exception, or raise another's.

    Compiled coroutines have no exception state of their own: what one handles while it waits is
    seen by all others, and `await` in `finally` raises whatever it finds there.
    """
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Try | ast.TryStar):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            for statement in (*handlers, *node.finalbody):
                lines += [wait.lineno for wait in in_this_scope(statement)]
        if isinstance(node, ast.AsyncWith):
            lines += [
                item.context_expr.lineno
                for item in node.items
                if not ast.unparse(item.context_expr).startswith(f"{LEFT_AT_ONCE}(")
            ]
    return sorted(set(lines))


def in_this_scope(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    if isinstance(node, WAITS):
        yield node
    if isinstance(node, ast.comprehension) and node.is_async:
        yield node.iter
    if not isinstance(node, SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from in_this_scope(child)


def test_every_module_that_is_compiled_is_there_and_has_its_order() -> None:
    names = compiled_modules()

    assert [name for name in names if not (ROOT / name).is_file()] == []
    assert names == sorted(set(names))


def test_mypy_refuses_what_would_be_left_out_of_them_as_unreachable() -> None:
    warned = [
        name
        for override in settings()["tool"]["mypy"]["overrides"]
        if override.get("warn_unreachable")
        for name in override["module"]
    ]
    modules = [name.removesuffix(".py").replace("/", ".") for name in compiled_modules()]

    assert not [
        module
        for module in modules
        if not any(fnmatch.fnmatchcase(module, name) for name in warned)
    ]


def test_the_compiler_of_a_build_is_the_one_that_is_tried_here() -> None:
    lock = (ROOT / "requirements/dev.lock").read_text()

    assert f"\n{COMPILER.replace('[mypyc]', '')} \\\n" in lock


@pytest.mark.parametrize("name", compiled_modules())
def test_nothing_waits_while_it_handles_an_exception(name: str) -> None:
    assert miscompiled(ast.parse((ROOT / name).read_text())) == [], (
        f"{name}: mypyc compiles an `await` in `except` or `finally`, or behind `async with`, "
        "wrongly (ADR 45). Keep the exception in a variable, and await after the handler."
    )


@pytest.mark.verify
def test_compiled_code_does_what_its_source_does(tmp_path: Path) -> None:
    package = tmp_path / "swapgate"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "sample.py").write_text(SAMPLE)
    script = str(ROOT / "compile_modules.py")
    build = [sys.executable, script, str(tmp_path), "swapgate/sample.py"]
    subprocess.run(build, env={**os.environ, "MYPYC_OPT_LEVEL": "0"}, check=True)  # noqa: S603
    for name in ("__init__.py", "source_finder.py"):  # mypy would follow what they import
        shutil.copy(ROOT / "swapgate" / name, package)

    file, *compiled = run_sample(tmp_path, interpreted="0")
    source, *interpreted = run_sample(tmp_path, interpreted="1")

    assert (file, source) == ("so", "py")
    assert compiled == interpreted
    assert "integer division" in compiled[0]


def run_sample(folder: Path, interpreted: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": "", "SWAPGATE_INTERPRETED": interpreted}
    command = [sys.executable, "-c", RUN]
    return subprocess.run(  # noqa: S603 - our own sample
        command, cwd=folder, env=environment, capture_output=True, check=True, text=True
    ).stdout.splitlines()


def test_an_init_is_written_out_and_no_line_moves() -> None:
    lines = write_inits(SAMPLE).splitlines()

    assert len(lines) == len(SAMPLE.splitlines())
    changed = [
        new for old, new in zip(SAMPLE.splitlines(), lines, strict=True) if new not in {old, ""}
    ]
    assert changed == [
        "@dataclass(frozen=True, slots=True, init=False)",
        (
            "    name: str; seen: list['str'] = field(default_factory=list); size: int = 3; "
            "twice: str = field(init=False)"
        ),
        (
            "    def __init__(self, name: 'str', seen: 'list[str] | None' = None, "
            "size: 'int' = 3) -> None: self.name = name; "
            "self.seen = list() if seen is None else seen; self.size = size; "
            "self.__post_init__()  # type: ignore"
        ),
    ]


@pytest.mark.parametrize(
    "fields",
    ["a: int\n    b: int = field(repr=False)", "a: int\n    def f(self): ...\n    b: int"],
)
def test_a_field_that_cannot_be_read_is_refused(fields: str) -> None:
    with pytest.raises(ValueError, match=r"^A"):
        write_inits(f"@dataclass(slots=True)\nclass A:\n    {fields}\n")
