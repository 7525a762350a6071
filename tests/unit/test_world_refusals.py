"""The published refusals of `tests/world/refusals`, as the product reads them."""

from collections import Counter
from typing import Final

import pytest

from harness.routing.reliability.rate_headers import is_used_up
from harness.routing.reliability.request_repair import RepairReach, find_repair
from router.frame.failure import error_object
from tests.world.refusal_corpus import Refusal, read_corpus

pytestmark = pytest.mark.req("A5", "B3", "B7", "B11")
CORPUS: Final = tuple(read_corpus())
TELLS: Final = {
    RepairReach.OUTRIGHT: "outright",
    RepairReach.COMBINATION: "combination",
    RepairReach.EXACT: "combination",
}
REPAIRED: Final = [refusal for refusal in CORPUS if "then" in refusal.entry]


@pytest.mark.parametrize("refusal", CORPUS, ids=lambda refusal: str(refusal.name))
def test_a_published_refusal_is_read_as_its_entry_says(refusal: Refusal) -> None:
    """An entry with `now` is wrong today: whoever mends it deletes `now`."""
    entry = refusal.entry

    assert dict(refusal.wrong()) == entry.get("now", {})
    assert refusal.rule() == entry["rule"]
    headers = {name: str(value) for name, value in entry.get("headers", {}).items()}
    assert is_used_up(headers) is entry.get("used_up", False)


@pytest.mark.parametrize("refusal", REPAIRED, ids=lambda refusal: str(refusal.name))
def test_a_published_refusal_of_a_field_is_repaired_as_its_entry_says(refusal: Refusal) -> None:
    entry = refusal.entry

    assert refusal.second_try() == entry.get("repair_now", entry["then"])
    if "tells" in entry:
        repair = find_repair(error_object(refusal.body) or {}, entry["sent"])
        assert (TELLS[repair.reach] if repair else "unrepaired") == entry["tells"]


def test_every_refusal_counts_once_and_has_its_page() -> None:
    assert all(refusal.entry["source"].startswith("https://") for refusal in CORPUS)
    assert max(Counter(refusal.name for refusal in CORPUS).values()) == 1
    assert max(Counter((refusal.provider, refusal.body) for refusal in CORPUS).values()) == 1
