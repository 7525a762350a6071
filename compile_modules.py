"""Compiles modules by mypyc where they lie: `python compile_modules.py ROOT MODULE.py…`, the
paths from ROOT on. Beside each module comes an extension, and above them the library that holds
the code of all, `swapgate/compiled__mypyc`.

Needs mypy, setuptools and a C compiler. MYPYC_OPT_LEVEL=0 compiles faster to slower code.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from mypyc.build import mypycify
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


def main() -> None:
    folder, *paths = sys.argv[1:]
    os.chdir(folder)
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
