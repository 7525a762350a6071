"""Posts alerts as JSON to webhooks, signed by HMAC-SHA-256 over time and body."""

import hmac
import json
import time
from base64 import b64encode
from datetime import datetime
from http.client import HTTPException
from typing import Final
from urllib.parse import unquote, urlsplit

from harness.domain.errors import DeliveryFailed
from harness.domain.operations.delivery import AlertMessage
from harness.runtime.outbound.guarded_http import GuardedHttpClient

SIGNATURE: Final = "x-swapgate-signature"
DELIVERY: Final = "x-swapgate-delivery"


def webhook_body(message: AlertMessage) -> bytes:
    """The message as JSON; docs/reference/alerts.md shows one."""
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
            **({"blocks": message.blocks} if message.blocks else {}),
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
    """Posts an alert to a webhook; any 2xx is a delivery. Raises DeliveryFailed; follows no
    redirect.
    """
    body = webhook_body(message)
    # The receiver compares it with its own clock, whatever ours in the tests says.
    at = int(time.time())  # noqa: TID251 - as said
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
        # Not its words: the URL may be in them, and the URL may have a token.
        raise DeliveryFailed(f"the webhook cannot be reached: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise DeliveryFailed(f"the webhook answered {status}")


def _authorization(url: str) -> dict[str, str]:
    """Basic, where the URL has a user in it."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"authorization": f"Basic {b64encode(user.encode()).decode()}"}
