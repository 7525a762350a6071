"""Finds the page of the dashboard that an alert leads to: where it is looked at, and where the
decision that it asks for is made; and its section of the runbook. Pure.
"""

from typing import Final
from urllib.parse import urlencode

from harness.domain.operations.alert_record import AlertRecord
from harness.domain.operations.alerts import Alert, AlertKind

_K: Final = AlertKind
ALERTS_PAGE: Final = "/alerts"
OF_A_PROPOSAL: Final = frozenset({_K.AWAITING_APPROVAL, _K.SHADOW_HELD})
OF_A_CANARY: Final = frozenset(
    {_K.ROLLED_BACK, _K.LOCAL_ABORT, _K.CANARY_PAUSED, _K.CANARY_HELD, _K.SAMPLE_RATIO}
)
# A page without a filter for what the alert is about.
WHOLE_PAGES: Final = {
    _K.BREAKER_OPEN: "/traffic",
    _K.OUR_KEY: "/providers",
    _K.QUOTA: "/providers",
    _K.SIGN_IN_ENDED: "/providers",
    _K.TOKEN_NOT_RENEWED: "/providers",
    _K.KEY_BUDGET: "/keys",
    _K.SPENDING_CAP: "/spending",
    _K.AUDIT_BROKEN: "/audit",
    _K.MODEL_SWITCH: "/sessions",
}


def find_alert_page(alert: Alert | AlertRecord) -> str:
    """Finds the page's path with its query, such as `/compare?id=pr_1`."""
    if alert.kind in OF_A_PROPOSAL:
        return f"/compare?{urlencode({'id': alert.key.partition(':')[2]})}"
    what, _, name = alert.subject.partition(" ")
    if what == "route" and name:
        page = "/canary" if alert.kind in OF_A_CANARY else "/routes"
        return f"{page}?{urlencode({'route': name})}"
    return WHOLE_PAGES.get(alert.kind, ALERTS_PAGE)


def find_runbook_page(kind: AlertKind) -> str:
    """Finds its section of the runbook on the dashboard, such as `/docs/runbook.html#drift`."""
    return f"/docs/runbook.html#{kind}"
