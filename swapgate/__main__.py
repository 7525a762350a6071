"""Starts the command `swapgate`, and `python -m swapgate`, by which our processes start one
another. It refuses old Python versions, so any Python 3 must be able to run this file.
"""

import sys

OLDEST_PYTHON = (3, 11)


def main() -> None:
    """Runs the command line. Does not return."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(
            "swapgate: Python 3.11 or newer is needed, and this is %d.%d: "  # noqa: UP031 - an old Python must be able to run this
            "install a newer one and run swapgate with it" % sys.version_info[:2]
        )
    from harness.frame.imports import delay_collection  # noqa: PLC0415 - an old Python cannot read it

    delay_collection()
    from harness.interfaces.cli.program import program  # noqa: PLC0415 - an old Python cannot read it

    program(prog_name="swapgate")


if __name__ == "__main__":
    main()
