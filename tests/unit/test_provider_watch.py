from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.calls.probe import ProbeReply
from harness.providers.target import Provider
from harness.routing.control.provider_watch import (
    AWAY_STATUSES,
    ProviderState,
    build_notice,
    find_fault,
    update_state,
)

pytestmark = pytest.mark.req("B9")
PROVIDER = Provider("sim", "sim", "http://127.0.0.1:9/v1")
AT = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.integers(100, 599))
def test_every_status_but_those_of_a_server_that_is_away_is_an_answer(status: int) -> None:
    fault = find_fault(ProbeReply(status, 0.1, error=f"{status}: text"))
    assert bool(fault) is (status in AWAY_STATUSES)


def test_no_status_is_a_fault() -> None:
    assert find_fault(ProbeReply(None, 0.1, error="timed out")) == "timed out"


@given(st.lists(st.sampled_from(["", "refused", "timed out"]), max_size=20))
def test_an_outage_begins_with_its_first_fault_and_ends_with_an_answer(
    faults: list[str],
) -> None:
    state = None
    begin = None
    for number, fault in enumerate(faults):
        at = AT + timedelta(seconds=20 * number)
        begin = (begin or at) if fault else None
        state = update_state(state, PROVIDER, fault, at, 20.0 * number)
        assert (state.since, state.fault, state.checked_at_s) == (begin, fault, 20.0 * number)
        notice = build_notice(state)
        assert (notice is not None) is bool(fault)
        if notice is not None:
            assert notice.text.endswith(f"{fault}.")


def test_disproved_checks_stay_disproved_until_an_answer() -> None:
    down = replace(ProviderState(PROVIDER, 0.0, "refused", AT), is_disproved=True)
    assert build_notice(update_state(down, PROVIDER, "refused", AT, 20.0)) is None
    up = update_state(down, PROVIDER, "", AT, 40.0)
    assert build_notice(update_state(up, PROVIDER, "refused", AT, 60.0)) is not None
