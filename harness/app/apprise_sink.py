"""Sends alerts by apprise (chat, e-mail, pagers) to a URL. The URL is a secret, and no error
contains it.

Swapproof imports this module with the first alert, because apprise loads slowly.
"""

import logging
import re
import threading
import warnings
from typing import Final

with warnings.catch_warnings():
    # apprise loads its plugins with the first URL, and they import deprecated modules.
    warnings.simplefilter("ignore", DeprecationWarning)
    import apprise

    apprise.Apprise.instantiate("json://localhost")

from harness.frame.alerts.alert import Severity
from harness.frame.alerts.alert_record import AlertMessage, Notified
from harness.frame.errors import DeliveryFailed

NOTIFY_TYPES: Final = {
    Severity.INFO: apprise.NotifyType.INFO,
    Severity.WARNING: apprise.NotifyType.WARNING,
    Severity.CRITICAL: apprise.NotifyType.FAILURE,
}
LOGGER: Final = logging.getLogger("apprise")
# apprise logs addresses, and its lines may contain passwords.
LOGGER.propagate = False
LOGGER.setLevel(logging.WARNING)
LOGGER.addHandler(logging.NullHandler())


class _LogCapture(logging.Handler):
    """Keeps the HTTP status in apprise's log lines of this thread. Only these lines contain the
    reason of a failure.
    """

    def __init__(self) -> None:
        super().__init__()
        self.status = ""
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        match_ = re.search(r"\berror=(\d{3})\b", record.getMessage())
        if match_ and record.thread == self._thread:
            self.status = match_[1]


def notify(
    url: str,
    message: AlertMessage,
    *,
    timeout_s: float,
) -> None:
    """Sends an alert to the URL's service. Raises DeliveryFailed, with the HTTP status if
    apprise logged one, or for a URL that apprise does not support.
    """
    sender = _build_sender(url, timeout_s)
    is_resolved = message.state is Notified.RESOLVED
    kind = apprise.NotifyType.SUCCESS if is_resolved else NOTIFY_TYPES[message.severity]
    body = message.text + (f"\n\nNext: {message.next_step}" if message.next_step else "")
    body += f"\nWhat to do: {message.runbook}" if message.runbook else ""
    body += f"\n{message.page}" if message.page else ""
    log_capture = _LogCapture()
    LOGGER.addHandler(log_capture)
    try:
        was_accepted = sender.notify(
            title=f"Swapproof: {message.title}", body=body, notify_type=kind
        )
    finally:
        LOGGER.removeHandler(log_capture)
    if not was_accepted:
        reason = (
            f"status {log_capture.status}"
            if log_capture.status
            else "no connection, or it was refused"
        )
        raise DeliveryFailed(f"apprise could not deliver it: {reason}")


def _build_sender(url: str, timeout_s: float) -> apprise.Apprise:
    sender = apprise.Apprise()
    if not sender.add(url):
        raise DeliveryFailed("apprise does not support this URL, or the URL is incomplete")
    for plugin in sender:
        # A redirect would send the alert, and perhaps a token, to another address.
        plugin.redirects = False
        plugin.socket_connect_timeout = timeout_s
        plugin.socket_read_timeout = timeout_s
    return sender
