"""Long lists are read in pages; a cursor marks where the next page begins."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar, overload
from urllib.parse import quote, unquote

from harness.frame.errors import InputError
from harness.frame.signing.signed_rows import RowFault

T = TypeVar("T")
S = TypeVar("S")

# Of a list that grows for ever, at once. Who needs what lies further back asks by a cursor.
MOST_LISTED: Final = 1000
INVALID_ROWS_HINT: Final = "not signed by this installation: run `swapgate db check`"


@dataclass(frozen=True, slots=True)
class PageRequest:
    limit: int = 100  # rows at most
    after: str | None = None  # the cursor that the page before ended with (`Page.next`)


FIRST_PAGE: Final = PageRequest()


@dataclass(frozen=True)
class Page(Sequence[T], Generic[T]):
    items: Sequence[T]
    total: int  # how many rows there are in all
    next: str | None = None  # the cursor of the page behind this one, None at the end
    # Rows of this page that are left out of its items, because they are not as they were
    # signed.
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
        return Page([change(item) for item in self.items], self.total, self.next, self.invalid)


def read_all(load: Callable[[PageRequest], Page[T]]) -> Iterator[T]:
    after: str | None = None
    while True:
        page = load(PageRequest(MOST_LISTED, after))
        yield from page
        if page.next is None:
            return
        after = page.next


def encode_cursor(values: Sequence[object]) -> str:
    """Encodes what names a row in its list's order."""
    return ",".join(quote(_text(value), safe=":") for value in values)


def decode_cursor(text: str, kinds: Sequence[type]) -> list[object]:
    parts = text.split(",")
    try:
        return [_value(part, kind) for part, kind in zip(parts, kinds, strict=True)]
    except (ValueError, OverflowError):
        raise InputError(
            f"{text!r} is no cursor of this list: give the `next` of its page before"
        ) from None


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


def _value(part: str, kind: type) -> object:
    text = unquote(part)
    if kind is datetime:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise ValueError(text)
        return found
    return int(text) if kind is int else text
