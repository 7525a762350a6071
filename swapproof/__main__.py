"""Starts the command `swapproof`, and `python -m swapproof`, by which our processes start one
another. It refuses old Python versions, so any Python 3 must be able to run this file.
"""

import sys
from typing import NoReturn

OLDEST_PYTHON = (3, 11)
# The first part of our modules' names: in a checkout, and in a wheel.
OUR_PACKAGES = ("harness", "swapproof")


def main() -> None:
    """Runs the command line. Does not return."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(
            "swapproof: Python 3.11 or newer is needed, and this is %d.%d: "  # noqa: UP031 - an old Python must be able to run this
            "install a newer one and run swapproof with it" % sys.version_info[:2]
        )
    try:
        from harness.frame.imports import delay_collection  # noqa: PLC0415 - an old Python cannot read it

        delay_collection()
        from harness.interfaces.cli.program import program  # noqa: PLC0415 - an old Python cannot read it
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in OUR_PACKAGES:
            raise
        refuse_without_swapproof_try()
    program(prog_name="swapproof")


def refuse_without_swapproof_try() -> NoReturn:
    """Ends the process: the distribution with the first modules is missing (ADR 0049)."""
    from importlib.metadata import version  # noqa: PLC0415 - an old Python lacks it

    sys.exit(
        "swapproof: modules are missing that the package swapproof-try installs: bring them "
        f"back with `{sys.executable} -m pip install --force-reinstall --no-deps "
        f"swapproof-try=={version('swapproof')}`"
    )


if __name__ == "__main__":
    main()
