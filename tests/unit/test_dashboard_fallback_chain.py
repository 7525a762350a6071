"""The chain's card: every fallback with why it may serve."""

from datetime import UTC, datetime

import pytest

from dashboard.text import route_text
from harness.control.routing.fallback_chain import ChainEntry
from harness.domain.routing.evidence import EvidenceKind, Waiver
from harness.domain.routing.target import Target

pytestmark = pytest.mark.req("A7")
WAIVER = Waiver("w_1", "chat", "t", "<no time>", "ada", datetime(2026, 12, 1, tzinfo=UTC))
CHAIN = (
    ChainEntry(Target("a", "one"), capable=True, evidence=EvidenceKind.BASELINE),
    ChainEntry(Target("a", "two"), capable=False, evidence=EvidenceKind.VERDICT, verdict="v_7"),
    ChainEntry(
        Target("a", "three"), capable=False, evidence=EvidenceKind.WAIVER, waiver=WAIVER
    ),
)


def test_each_fallback_says_why_it_may_serve() -> None:
    shown = route_text.fallback_table("chat", CHAIN)

    for words in (
        "a/one",
        "baseline",
        "verdict v_7",
        "waiver of ada, until",
        "&lt;no time&gt;",
    ):
        assert words in shown
    assert "expired" not in shown
    assert shown.index("a/one") < shown.index("a/two") < shown.index("a/three")


def test_an_expired_waiver_is_a_banner() -> None:
    late = ChainEntry(
        Target("a", "three"),
        capable=False,
        evidence=EvidenceKind.WAIVER,
        waiver=WAIVER,
        waiver_expired=True,
    )

    shown = route_text.fallback_table("chat", (late,))

    assert "A waiver has expired." in shown
    assert "swapgate route fallback remove chat" in shown


def test_a_route_without_a_chain_has_no_card() -> None:
    assert route_text.fallback_table("chat", ()) == ""
