"""The dialogs of a route's drift watch: ask its model again at once, and accept the model as it
answers now.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.dialogs import action_dialogs
from dashboard.dialogs.action_dialogs import Opener
from dashboard.text import drift_text, html
from dashboard.text.html import escape, strong
from harness.control.drift import reports
from harness.control.drift.reports import DriftStatus
from harness.domain.drift import DriftWatchState
from harness.domain.operations.access import Role

WAITS: Final = "Found drift waits for a decision: accept the model, or propose another one."


def drift_openers(route: str, statuses: Sequence[DriftStatus]) -> Sequence[Opener]:
    """Describes the buttons below the drift card of a route."""
    calm = [status for status in statuses if not is_drifted(status)]
    return [
        Opener(
            "Check for drift now …",
            ":material/refresh:",
            partial(run, route, calm),
            "drift-run",
            Role.PROPOSER,
            "" if calm else WAITS,
        ),
        Opener(
            "Accept how it answers now …",
            ":material/task_alt:",
            partial(accept, route, statuses),
            "drift-accept",
            Role.APPROVER,
        ),
    ]


def is_drifted(status: DriftStatus) -> bool:
    return status.state == DriftWatchState.DRIFTED


@action_dialogs.dialog("Check for drift now")
def run(route: str, statuses: Sequence[DriftStatus]) -> None:
    """Says which model is asked what, and asks it again."""
    suite = _choose_suite(statuses, f"drift-run-suite-{route}")
    model = statuses[0].model
    st.html(
        html.block(
            f"<p>{strong(model)} gets the items of {strong(suite)} again, whatever the "
            "schedule says, and its answers are compared with the baseline. The control "
            "process does it; Spending counts the calls as drift checks.</p>"
        )
    )
    page_frame.warn_without_control()
    action_dialogs.submit(
        "Check it",
        key=f"drift-run-now-{route}",
        role=Role.PROPOSER,
        missing="",
        act=lambda actor: reports.start_checks(page_frame.context(), actor, route, suite=suite),
        done=lambda actor: (
            f"{actor.name} asked {model} again; the drift watch of route {route} shows the "
            "result."
        ),
    )


@action_dialogs.dialog("Accept how it answers now", width="medium")
def accept(route: str, statuses: Sequence[DriftStatus]) -> None:
    """Says what was found and what an acceptance ends, and asks why."""
    # The one that waits for a person first.
    ordered = sorted(statuses, key=lambda status: not is_drifted(status))
    suite = _choose_suite(ordered, f"drift-suite-{route}")
    status = next(status for status in statuses if status.suite == suite)
    change = drift_text.change(status)
    found = f" So far: {escape(change)} points." if change else ""
    others = [name for name in status.routes if name != route]
    also = f" It serves {strong(', '.join(others))}, too." if others else ""
    st.html(
        html.block(
            f"<p>A new baseline of {strong(status.model)} is measured on {strong(suite)}. "
            f"Later checks compare with it, and the alert of this drift ends.{found}{also}</p>"
        )
    )
    page_frame.warn_without_control()
    reason = action_dialogs.ask_reason(f"drift-why-{route}")
    action_dialogs.submit(
        "Accept it",
        key=f"drift-accept-now-{route}",
        role=Role.APPROVER,
        missing="" if reason else action_dialogs.REASON_MISSING,
        act=lambda actor: reports.accept_baseline(
            page_frame.context(), actor, route, suite=suite, reason=reason
        ),
        done=lambda actor: (
            f"{actor.name} accepted how {status.model} answers on suite {suite}: a new "
            "baseline is measured."
        ),
    )


def _choose_suite(statuses: Sequence[DriftStatus], key: str) -> str:
    """Asks for one of the suites; does not ask where there is but one."""
    names = [status.suite for status in statuses]
    if len(names) == 1:
        return names[0]
    return st.selectbox("Suite", names, key=key)
