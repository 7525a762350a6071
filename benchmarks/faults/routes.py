"""The routes of a run: one for each variant and each client, so that no state is shared."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from benchmarks.faults.catalogue import Row, Variant

PRIMARY, SPARE = "p", "s"
# The official client's own retries: off, and its default.
RETRIES: Final = (0, 2)


class Route(NamedTuple):
    """name: what clients call it. primary, spare: models at the first provider, the other."""

    name: str
    variant: Variant

    @property
    def primary(self) -> str:
        return f"{PRIMARY}.{self.name}"

    @property
    def spare(self) -> str:
        return f"{SPARE}.{self.name}"


def route(variant: Variant, retries: int) -> Route:
    return Route(f"{variant.name}-r{retries}", variant)


def routes(rows: tuple[Row, ...]) -> Iterator[Route]:
    for row in rows:
        for variant in row.variants:
            for retries in RETRIES:
                yield route(variant, retries)
