"""Lists that grow for ever, a page at a time."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import click

from harness.cli import output
from harness.ports import MOST_LISTED

PAGE: Final = 100


class Listed(Protocol):
    @property
    def id(self) -> str: ...


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--limit and --after."""
    after = click.option("--after", metavar="ID", help="Go on behind this one.")
    limit = click.option(
        "--limit",
        type=click.IntRange(1, MOST_LISTED),
        default=PAGE,
        show_default=True,
        help="How many at the most.",
    )
    return limit(after(command))


def note(found: Sequence[Listed], total: int, limit: int) -> None:
    """Says how to see more, where there may be more."""
    if len(found) == limit and total > limit:
        output.note(f"{limit} of {total:,}: `--after {found[-1].id}` shows the next")
