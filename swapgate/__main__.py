"""Entry point of the command `swapgate`, and of `python -m swapgate`, by which our processes
start one another. It refuses a Python that is too old; any Python 3 can read this file, to say
so.
"""

import sys

OLDEST = (3, 11)


def main() -> None:
    """Run the command line; does not return."""
    if sys.version_info < OLDEST:
        sys.exit(
            "swapgate: Python 3.11 or newer is needed, and this is %d.%d: "  # noqa: UP031 - as above
            "install a newer one and run swapgate with it" % sys.version_info[:2]
        )
    from harness.frame.imports import put_off_collection  # noqa: PLC0415 - an old Python cannot read it

    put_off_collection()
    from harness.interfaces.cli.program import program  # noqa: PLC0415 - as above

    program(prog_name="swapgate")


if __name__ == "__main__":
    main()
