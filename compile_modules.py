"""Compiles modules by mypyc where they lie: `python compile_modules.py ROOT MODULE.py…`, the
paths from ROOT on. Beside each module comes an extension, and above them the library that holds
the code of all, `swapgate/compiled__mypyc`.

While it compiles, the dataclasses have their `__init__` written out (`write_inits`): the one
that `dataclass` makes stays interpreted, and takes ten times as long.

Needs mypy, setuptools and a C compiler. MYPYC_OPT_LEVEL=0 compiles faster to slower code.
"""

import ast
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# In a wheel, `swapgate` is the only name at top level.
GROUP: Final = "swapgate.compiled"
SCRATCH: Final = "build"
SOURCES: Final = f"{SCRATCH}/c"
# mypyc puts the headers of such a group one folder deeper than it looks for them.
HEADERS: Final = f"{SOURCES}/{GROUP.partition('.')[0]}"
# Modules that are not compiled are none of its business, nor is what this project's own mypy
# run says about style.
FLAGS: Final = (
    "--config-file=",
    f"--cache-dir={SCRATCH}/mypy",
    "--explicit-package-bases",
    "--follow-imports=silent",
    "--ignore-missing-imports",
    "--disable-error-code=import-untyped",
)


class ParallelBuild(build_ext):  # type: ignore[misc]  # setuptools has no types
    """Compiles the files of an extension at once: one library holds nearly all of them."""

    def build_extension(self, ext: Extension) -> None:
        def compile_file(source: str) -> str:
            (built,) = self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=[*ext.include_dirs, HEADERS],
                extra_postargs=ext.extra_compile_args,
            )
            return str(built)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_file, ext.sources))
        place = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(objects, place, build_temp=self.build_temp)


def write_inits(text: str) -> str:
    """Gives each dataclass with slots an `__init__` on lines of its fields, so that no line
    moves. Raises ValueError for a field that it cannot read.
    """
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ClassDef):
            continue
        fields = [member for member in node.body if isinstance(member, ast.AnnAssign)]
        for decorator in node.decorator_list:
            # On one line alone is no place for two.
            if is_slotted_dataclass(decorator) and fields[0].lineno < fields[-1].lineno:
                lines[decorator.lineno - 1] = f"@{ast.unparse(decorator)[:-1]}, init=False)"
                first, end = fields[0].lineno - 1, fields[-1].end_lineno or 0
                written = ["; ".join(map(ast.unparse, fields)), format_init(node, fields)]
                blank = [""] * (end - first - len(written))
                lines[first:end] = [*(f"    {line}" for line in written), *blank]
    return "\n".join(lines) + "\n"


def is_slotted_dataclass(decorator: ast.expr) -> bool:
    written = ast.unparse(decorator)
    return written.startswith("dataclass(") and "slots=True" in written


def format_init(node: ast.ClassDef, fields: list[ast.AnnAssign]) -> str:
    """An `__init__` on one line, as `dataclass` makes it."""
    parameters, body = ["self"], []
    if any(not isinstance(m, ast.AnnAssign) for m in node.body if stands_between(m, fields)):
        raise ValueError(f"{node.name}: something stands between its fields")
    for field in fields:
        name, kind = ast.unparse(field.target), ast.unparse(field.annotation).replace("'", "")
        value = ast.unparse(field.value) if field.value is not None else ""
        if value == "field(init=False)":
            continue
        if value.startswith("field(default_factory="):
            made = value.removeprefix("field(default_factory=").removesuffix(")")
            parameters.append(f"{name}: '{kind} | None' = None")
            body.append(f"self.{name} = {made}() if {name} is None else {name}")
        elif value.startswith("field("):
            raise ValueError(f"{node.name}.{name}: {value} is not known here")
        else:
            parameters.append(f"{name}: '{kind}'" + (f" = {value}" if value else ""))
            body.append(f"self.{name} = {name}")
    if any(isinstance(m, ast.FunctionDef) and m.name == "__post_init__" for m in node.body):
        body.append("self.__post_init__()")
    # A frozen one takes no other assignments, and compiled these are none of Python's.
    return f"def __init__({', '.join(parameters)}) -> None: {'; '.join(body)}  # type: ignore"


def stands_between(member: ast.stmt, fields: list[ast.AnnAssign]) -> bool:
    return fields[0].lineno < member.lineno < fields[-1].lineno


def main() -> None:
    folder, *paths = sys.argv[1:]
    os.chdir(folder)
    sources = {Path(path): Path(path).read_text(encoding="utf-8") for path in paths}
    try:
        for path, text in sources.items():
            path.write_text(write_inits(text), encoding="utf-8")
        build(paths)
    finally:
        for path, text in sources.items():
            path.write_text(text, encoding="utf-8")


def build(paths: list[str]) -> None:
    # It takes a second to import.
    from mypyc.build import mypycify  # noqa: PLC0415

    extensions = mypycify(
        [*FLAGS, *paths],
        opt_level=os.environ.get("MYPYC_OPT_LEVEL", "3"),
        debug_level="0",
        multi_file=True,
        target_dir=SOURCES,
        group_name=GROUP,
    )
    setup(
        name="swapgate",
        packages=[],
        ext_modules=extensions,
        cmdclass={"build_ext": ParallelBuild},
        script_args=["--quiet", "build_ext", "--inplace", f"--build-temp={SCRATCH}/objects"],
    )


if __name__ == "__main__":
    main()
