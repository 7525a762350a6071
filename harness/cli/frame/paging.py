"""Adds `--limit` and `--after` to commands that list page by page, and prints how to see the
next page and which rows have no valid signature.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

from harness.cli.frame import output
from harness.domain.pagination import INVALID_ROWS_HINT, MOST_LISTED, Page, PageRequest

PAGE: Final = 100


def page_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --limit and --after to a command, which gets them as `page_request`."""
    return page_options_with(PAGE)(command)


def page_options_with(
    default: int, *short: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the options of a page to a command. default: of the limit. short: its other
    names.
    """

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def asking(*args: Any, limit: int, after: str | None, **given: Any) -> Any:
            return command(*args, page_request=PageRequest(limit, after), **given)

        behind = click.option(
            "--after",
            metavar="CURSOR",
            help="Continue after this cursor, which the previous page printed.",
        )
        size = click.option(
            *short,
            "--limit",
            type=click.IntRange(1, MOST_LISTED),
            default=default,
            show_default=True,
            help="Maximum number of rows.",
        )
        return size(behind(asking))

    return decorated


def note_page(page: Page[Any]) -> None:
    """Says how to see more, and which rows of the page have no valid signature."""
    for fault in page.invalid:
        output.note(f"{fault.name}: {INVALID_ROWS_HINT}")
    if page.next is not None:
        output.note(f"{len(page)} of {page.total:,}: `--after {page.next}` shows the next")
