"""Sends alerts to the configured sinks, each by apprise or as a signed webhook.

`harness.operations.alert_delivery` decides about an alert's text, time and repetitions. No
error of this module contains a URL, because the URLs of chats and pagers are secrets.
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
from harness.frame.alerts.alert_record import (
    AlertMessage,
    AlertSettings,
    AlertSink,
)
from harness.frame.errors import ConfigError, DeliveryFailed
from harness.providers.calls.guarded_http import GuardedHttpClient

SIGNATURE_HEADER: Final = "x-swapproof-signature"
DELIVERY_HEADER: Final = "x-swapproof-delivery"


def build_webhook_body(message: AlertMessage) -> bytes:
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


def sign_body(
    body: bytes,
    secret: bytes,
    at: int,
) -> str:
    """Signs a webhook's body. Returns `t=SECONDS,v1=MAC`: the seconds since 1970, and the
    HMAC-SHA-256 of `SECONDS.BODY` in hex.
    """
    mac = hmac.digest(secret, f"{at}.".encode() + body, "sha256")
    return f"t={at},v1={mac.hex()}"


def post_to_webhook(
    url: str,
    secret: bytes,
    message: AlertMessage,
    *,
    timeout_s: float,
) -> None:
    """Posts an alert to a webhook, signed. Raises DeliveryFailed for every answer
    except 2xx.

    Args:
        timeout_s: for the whole request.
    """
    body = build_webhook_body(message)
    at = int(time.time())  # noqa: TID251 - the receiver compares it with its real clock
    headers = {
        "content-type": "application/json",
        SIGNATURE_HEADER: sign_body(body, secret, at),
        DELIVERY_HEADER: message.id,
        **_build_authorization(url),
    }
    try:
        with GuardedHttpClient().send(url, headers, body, timeout_s=timeout_s) as answer:
            status = answer.status
    except TimeoutError:
        raise DeliveryFailed(f"the webhook did not answer within {timeout_s:g} s") from None
    except (OSError, HTTPException, ValueError) as error:
        # Omits the error's text, which may contain the URL with a token.
        raise DeliveryFailed(f"the webhook cannot be reached: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise DeliveryFailed(f"the webhook answered {status}")


def _build_authorization(url: str) -> dict[str, str]:
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
        configured_sink = self._sinks.get(sink)
        if configured_sink is None:
            raise DeliveryFailed(f"there is no sink {sink!r} in the configuration")
        try:
            self._send(configured_sink, message)
        except DeliveryFailed:
            raise
        except Exception as error:  # noqa: BLE001 - a sender of any kind may raise anything
            # Omits the error's text, which may contain the URL with a password.
            raise DeliveryFailed(f"the sender failed: {type(error).__name__}") from None

    def find_missing_secret(self, sink: str) -> str:
        """Returns the missing secret of a sink; empty if the sink has all. `swapproof doctor`
        shows it.
        """
        configured_sink = self._sinks[sink]
        try:
            for variable in (configured_sink.url_env, configured_sink.secret_env):
                if variable:
                    self._read_secret(variable)
        except DeliveryFailed as error:
            return str(error)
        return ""

    def _send(self, sink: AlertSink, message: AlertMessage) -> None:
        if sink.webhook:
            secret = self._read_secret(sink.secret_env).encode()
            post_to_webhook(sink.webhook, secret, message, timeout_s=self._timeout_s)
            return
        from harness.app import apprise_sink  # noqa: PLC0415 - apprise is slow to import

        url = sink.url or self._read_secret(sink.url_env)
        apprise_sink.notify(url, message, timeout_s=self._timeout_s)

    def _read_secret(self, variable: str) -> str:
        try:
            value = environment_secret(variable, self._environ)
        except ConfigError as error:
            raise DeliveryFailed(str(error)) from None
        if value is None:
            raise DeliveryFailed(f"the environment variable {variable} is not set")
        return value
