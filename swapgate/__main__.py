"""Starts the command `swapgate`, and `python -m swapgate`, by which our processes start one
another. It refuses old Python versions, so any Python 3 must be able to run this file.
"""

import sys
from typing import NoReturn

OLDEST_PYTHON = (3, 11)
# The first part of our modules' names: in a checkout, and in a wheel.
OUR_PACKAGES = ("harness", "swapgate")


def main() -> None:
    """Runs the command line. Does not return."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(
            "swapgate: Python 3.11 or newer is needed, and this is %d.%d: "  # noqa: UP031 - an old Python must be able to run this
            "install a newer one and run swapgate with it" % sys.version_info[:2]
        )
    try:
        from harness.frame.imports import delay_collection  # noqa: PLC0415 - an old Python cannot read it

        delay_collection()
        from harness.interfaces.cli.program import program  # noqa: PLC0415 - an old Python cannot read it
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in OUR_PACKAGES:
            raise
        refuse_without_swapgate_try()
    program(prog_name="swapgate")


def refuse_without_swapgate_try() -> NoReturn:
    """Ends the process: the distribution with the first modules is missing (ADR 0049)."""
    from importlib.metadata import version  # noqa: PLC0415 - an old Python lacks it

    sys.exit(
        "swapgate: modules are missing that the package swapgate-try installs: bring them back "
        f"with `{sys.executable} -m pip install --force-reinstall --no-deps "
        f"swapgate-try=={version('swapgate')}`"
    )


if __name__ == "__main__":
    main()
