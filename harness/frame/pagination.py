"""Pages of long lists; a cursor marks the start of the next page."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar, overload
from urllib.parse import quote, unquote

from harness.frame.errors import InputError
from harness.frame.signing.signed_rows import RowFault

T = TypeVar("T")
S = TypeVar("S")

# The greatest number of rows in one response of an unbounded list. A cursor gets the older
# rows.
MOST_LISTED: Final = 1000
INVALID_ROWS_HINT: Final = "not signed by this installation: run `swapproof db check`"


@dataclass(frozen=True, slots=True)
class PageRequest:
    limit: int = 100  # rows at most
    after: str | None = None  # the `next` cursor of the previous page


FIRST_PAGE: Final = PageRequest()


@dataclass(frozen=True)
class Page(Sequence[T], Generic[T]):
    items: Sequence[T]
    total: int  # the number of rows in the whole list
    next: str | None = None  # the cursor of the next page; None at the end
    # Rows that `items` omits because their signatures are invalid.
    invalid: Sequence[RowFault] = ()

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def map(self, change: Callable[[T], S]) -> "Page[S]":
        return Page(
            [change(item) for item in self.items],
            self.total,
            self.next,
            self.invalid,
        )


def read_all(load: Callable[[PageRequest], Page[T]]) -> Iterator[T]:
    """Yields the rows of all pages.

    Args:
        load: reads one page.
    """
    cursor: str | None = None
    while True:
        page = load(PageRequest(MOST_LISTED, cursor))
        yield from page
        if page.next is None:
            return
        cursor = page.next


def encode_cursor(values: Sequence[object]) -> str:
    """Encodes the values that identify a row's position in its list."""
    return ",".join(quote(_format_cursor_value(value), safe=":") for value in values)


def decode_cursor(text: str, kinds: Sequence[type]) -> list[object]:
    """Decodes the values of a cursor.

    Args:
        kinds: their types.

    Raises InputError.
    """
    parts = text.split(",")
    try:
        return [
            _parse_cursor_value(part, kind) for part, kind in zip(parts, kinds, strict=True)
        ]
    except (ValueError, OverflowError):
        raise InputError(
            f"{text!r} is not a cursor of this list: use the `next` of the previous page"
        ) from None


def _format_cursor_value(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


def _parse_cursor_value(part: str, kind: type) -> object:
    text = unquote(part)
    if kind is datetime:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError(text)
        return at
    return int(text) if kind is int else text
