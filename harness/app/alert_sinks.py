"""Sends alerts to the configured sinks, each by apprise or as a signed webhook.

What an alert says, when it is sent and how often a delivery is repeated is decided in
`harness.operations.alert_delivery`. No error of this module contains a URL, because URLs of
chats and pagers are secrets.
"""

import hmac
import json
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from http.client import HTTPException
from typing import Final
from urllib.parse import unquote, urlsplit

from harness.app.secret_files import environment_secret
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alert_record import AlertMessage, AlertSettings, AlertSink
from harness.frame.errors import ConfigError, DeliveryFailed
from harness.providers.calls.guarded_http import GuardedHttpClient

SIGNATURE: Final = "x-swapgate-signature"
DELIVERY: Final = "x-swapgate-delivery"


def webhook_body(message: AlertMessage) -> bytes:
    """Returns the message as JSON; docs/how-to/alerts.md has an example."""
    return json.dumps(
        {
            "id": message.id,
            "alert": message.alert,
            "kind": message.kind.value,
            "severity": message.severity.name.lower(),
            "state": message.state.value,
            "subject": message.subject,
            "title": message.title,
            "text": message.text,
            "next_step": message.next_step,
            "first_seen": message.first_seen,
            "last_seen": message.last_seen,
            "count": message.count,
            **({"page": message.page} if message.page else {}),
            **({"runbook": message.runbook} if message.runbook else {}),
        },
        ensure_ascii=False,
        default=datetime.isoformat,
    ).encode()


def signature(body: bytes, secret: bytes, at: int) -> str:
    """Signs a webhook's body: `t=…,v1=…`, the seconds since 1970, and the HMAC-SHA-256 of
    `t.body` in hex.
    """
    mac = hmac.digest(secret, f"{at}.".encode() + body, "sha256")
    return f"t={at},v1={mac.hex()}"


def post(url: str, secret: bytes, message: AlertMessage, *, timeout_s: float) -> None:
    """Posts an alert to a webhook, signed. Raises DeliveryFailed for every answer but 2xx.

    timeout_s: for the whole request.
    """
    body = webhook_body(message)
    at = int(time.time())  # noqa: TID251 - the receiver compares it with its real clock
    headers = {
        "content-type": "application/json",
        SIGNATURE: signature(body, secret, at),
        DELIVERY: message.id,
        **_authorization(url),
    }
    try:
        with GuardedHttpClient().send(url, headers, body, timeout_s=timeout_s) as answer:
            status = answer.status
    except TimeoutError:
        raise DeliveryFailed(f"the webhook did not answer within {timeout_s:g} s") from None
    except (OSError, HTTPException, ValueError) as error:
        # Without the error's text, which may contain the URL with a token.
        raise DeliveryFailed(f"the webhook cannot be reached: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise DeliveryFailed(f"the webhook answered {status}")


def _authorization(url: str) -> dict[str, str]:
    """Returns Basic authentication if the URL contains a user."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"authorization": f"Basic {b64encode(user.encode()).decode()}"}


class ConfiguredSinks:
    """Sends alerts to the configured sinks. Implements the port that alert delivery uses.

    environ: contains URLs and secrets, under the names that the configuration gives.
    """

    def __init__(self, settings: AlertSettings, environ: Mapping[str, str]) -> None:
        self._sinks = {sink.name: sink for sink in settings.sinks}
        self._timeout_s = settings.timeout_s
        self._environ = environ

    def names(self) -> Sequence[str]:
        return list(self._sinks)

    def takes(self, sink: str, kind: AlertKind) -> bool:
        return self._sinks[sink].takes(kind)

    def send(self, sink: str, message: AlertMessage) -> None:
        """Sends one alert. Raises DeliveryFailed, with a reason that a person may read."""
        known = self._sinks.get(sink)
        if known is None:
            raise DeliveryFailed(f"there is no sink {sink!r} in the configuration")
        try:
            self._send(known, message)
        except DeliveryFailed:
            raise
        except Exception as error:  # noqa: BLE001 - a sender of any kind may raise anything
            # Without the error's text, which may contain the URL with a password.
            raise DeliveryFailed(f"the sender failed: {type(error).__name__}") from None

    def lacks(self, sink: str) -> str:
        """Returns the missing secret of a sink; empty if the sink has all. `swapgate doctor`
        shows it.
        """
        known = self._sinks[sink]
        try:
            for variable in (known.url_env, known.secret_env):
                if variable:
                    self._secret(variable)
        except DeliveryFailed as error:
            return str(error)
        return ""

    def _send(self, sink: AlertSink, message: AlertMessage) -> None:
        if sink.webhook:
            secret = self._secret(sink.secret_env).encode()
            post(sink.webhook, secret, message, timeout_s=self._timeout_s)
            return
        from harness.app import apprise_sink  # noqa: PLC0415 - apprise is slow to import

        url = sink.url or self._secret(sink.url_env)
        apprise_sink.notify(url, message, timeout_s=self._timeout_s)

    def _secret(self, variable: str) -> str:
        try:
            value = environment_secret(variable, self._environ)
        except ConfigError as error:
            raise DeliveryFailed(str(error)) from None
        if value is None:
            raise DeliveryFailed(f"the environment variable {variable} is not set")
        return value
