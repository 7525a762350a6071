"""Posts alerts as JSON to webhooks, signed by HMAC-SHA-256 over time and body."""

import asyncio
import hmac
import json
import time
from datetime import datetime
from typing import Final

from harness.domain.errors import DeliveryFailed
from harness.domain.operations.delivery import AlertMessage

SIGNATURE: Final = "x-swapgate-signature"
DELIVERY: Final = "x-swapgate-delivery"


def webhook_body(message: AlertMessage) -> bytes:
    """The message as JSON; docs/alerts.md shows one."""
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
        },
        ensure_ascii=False,
        default=datetime.isoformat,
    ).encode()


def signature(body: bytes, secret: bytes, at: int) -> str:
    """`t=…,v1=…`: seconds since 1970, and the HMAC-SHA-256 of `t.body` in hex."""
    mac = hmac.digest(secret, f"{at}.".encode() + body, "sha256")
    return f"t={at},v1={mac.hex()}"


def post(url: str, secret: bytes, message: AlertMessage, *, timeout_s: float) -> None:
    """Any 2xx is a delivery. Raises DeliveryFailed; follows no redirect."""
    body = webhook_body(message)
    # The receiver compares it with its own clock, whatever ours in the tests says.
    at = int(time.time())  # noqa: TID251 - as said
    headers = {
        "content-type": "application/json",
        "user-agent": "swapgate",
        SIGNATURE: signature(body, secret, at),
        DELIVERY: message.id,
    }
    status = asyncio.run(_post(url, body, headers, timeout_s))
    if not 200 <= status < 300:
        raise DeliveryFailed(f"the webhook answered {status}")


async def _post(url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> int:
    import aiohttp  # noqa: PLC0415 - only who has a webhook pays for it

    limit = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            return answer.status
    except TimeoutError:
        raise DeliveryFailed(f"the webhook did not answer within {timeout_s:g} s") from None
    except aiohttp.ClientError as error:
        # Not its words: the URL may be in them, and the URL may have a token.
        raise DeliveryFailed(f"the webhook cannot be reached: {type(error).__name__}") from None
