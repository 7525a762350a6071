"""Models of the catalogue, as a table for people and as JSON."""

from collections.abc import Sequence

from harness.cli.frame import output
from harness.cli.frame.session import Session
from harness.domain.providers.catalogue import CatalogueEntry
from harness.domain.routing.target import Price


def show_entries(
    session: Session, found: Sequence[tuple[str, CatalogueEntry]], *, empty: str
) -> None:
    """empty: what a person reads in place of a table without rows."""
    if session.json:
        output.document([{"name": name, **_json(each)} for name, each in found])
        return
    output.table(
        ["MODEL", "INPUT $/MTOK", "OUTPUT $/MTOK", "WINDOW", "CAN", "ENDS"],
        [
            [
                name,
                *prices(each.price),
                each.context_window or "unknown",
                " ".join(sorted(each.has)) or "unknown",
                each.end_date.isoformat() if each.end_date else "",
            ]
            for name, each in found
        ],
        empty=empty,
    )


def prices(price: Price | None) -> tuple[str, str]:
    """Input and output, in dollars per million tokens."""
    if price is None:
        return "unknown", "unknown"
    return f"{price.input_usd_per_mtok:g}", f"{price.output_usd_per_mtok:g}"


def _json(entry: CatalogueEntry) -> dict[str, object]:
    return {
        "family": entry.family,
        "price": entry.price.as_json() if entry.price else None,
        "context_window": entry.context_window,
        "has": sorted(entry.has),
        "lacks": sorted(entry.lacks),
        "end_date": entry.end_date,
    }
