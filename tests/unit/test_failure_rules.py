"""Every cell of the table of failure classes (docs/reference/router.md)."""

import pytest

from harness.domain.reliability.failures import (
    CLIENT_FAILURES,
    FAILURE_RULES,
    BreakerEffect,
    FailureClass,
    FaultOwner,
    NextTarget,
    SameTarget,
)

F = FailureClass
TABLE = """
class            fault    same_target next_target    breaker  alerts other_key several_callers
rate_limited     ours     retry_after yes            neutral  no     yes       no
quota            ours     never       yes            opens    yes    yes       no
our_key          ours     never       yes            opens    yes    yes       no
blocked          provider never       yes            opens    no     no        yes
region           region   never       yes            opens    no     no        no
overloaded       provider backoff     yes            failure  no     no        no
server           provider once        yes            failure  no     no        no
connect          provider once        yes            failure  no     no        no
timeout          provider never       yes            failure  no     no        no
malformed        provider never       yes            failure  no     no        no
aborted          provider once        yes            failure  no     no        yes
empty            provider never       yes            failure  no     no        no
bad_request      client   never       no             neutral  no     no        no
unsupported      client   never       yes            neutral  no     no        no
foreign_state    client   never       no             neutral  no     no        no
endpoint_missing endpoint never       yes            neutral  no     no        no
model_unknown    ours     never       yes            opens    yes    no        no
context_window   client   never       larger_window  neutral  no     no        no
content_policy   client   never       if_route_says  neutral  no     no        no
cancelled        client   never       no             neutral  no     no        no
internal         router   never       yes            neutral  no     no        no
"""
HEAD, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = [
    (row[0], column, cell)
    for row in ROWS
    for column, cell in zip(HEAD[1:], row[1:], strict=True)
]


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize(("failure", "column", "cell"), CELLS)
def test_a_class_does_what_its_cell_says(failure: str, column: str, cell: str) -> None:
    value = getattr(FAILURE_RULES[F(failure)], column)

    assert (("no", "yes")[value] if isinstance(value, bool) else value.value) == cell


def test_every_class_has_one_row() -> None:
    assert set(FAILURE_RULES) == set(F) == {F(row[0]) for row in ROWS}


def test_every_word_of_the_table_is_used() -> None:
    assert {rule.same_target for rule in FAILURE_RULES.values()} == set(SameTarget)
    assert {rule.next_target for rule in FAILURE_RULES.values()} == set(NextTarget)
    assert {rule.breaker for rule in FAILURE_RULES.values()} == set(BreakerEffect)
    assert {rule.fault for rule in FAILURE_RULES.values()} == set(FaultOwner)


def test_only_a_full_context_asks_for_a_larger_window_and_only_a_policy_for_the_route() -> None:
    assert [failure for failure in F if FAILURE_RULES[failure].needs_larger_window] == [
        F.CONTEXT_WINDOW
    ]
    assert [failure for failure in F if FAILURE_RULES[failure].policy_fallback] == [
        F.CONTENT_POLICY
    ]


@pytest.mark.req("A5")
@pytest.mark.parametrize("failure", sorted(CLIENT_FAILURES))
def test_what_is_the_clients_own_is_never_repeated_and_harms_no_target(failure: F) -> None:
    rule = FAILURE_RULES[failure]

    assert rule.same_target is SameTarget.NEVER
    assert rule.breaker is BreakerEffect.NEUTRAL
    assert not rule.alerts
