"""Signed values are a few values of JSON with an HMAC, which this installation alone can write:
`v1.PAYLOAD.MAC`, a JSON object in base64url, and the HMAC-SHA-256 over all that stands before
it, in hexadecimal digits. Pure.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

MAX_SIGNED_BYTES: Final = 4096
_VERSION: Final = b"v1"


def sign_values(values: Mapping[str, object], secret: bytes, purpose: bytes) -> bytes:
    """Signs values as one compact text. secret: the installation's. purpose: what they are
    signed for, and good for alone.
    """
    payload = json.dumps(values, separators=(",", ":")).encode()
    signed = b"%b.%b" % (_VERSION, base64.urlsafe_b64encode(payload).rstrip(b"="))
    return b"%b.%b" % (signed, _mac(signed, secret, purpose))


def open_values(signed: bytes, secret: bytes, purpose: bytes) -> dict[str, Any] | None:
    """What was signed; None for what was not, for this purpose. Nothing is parsed before the
    signature holds.
    """
    text, _, mac = signed.rpartition(b".")
    is_short = len(signed) <= MAX_SIGNED_BYTES
    if not (is_short and hmac.compare_digest(mac, _mac(text, secret, purpose))):
        return None
    version, _, payload = text.partition(b".")
    try:
        values = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    except (ValueError, binascii.Error):
        return None
    return values if version == _VERSION and isinstance(values, dict) else None


def _mac(signed: bytes, secret: bytes, purpose: bytes) -> bytes:
    key = hmac.digest(secret, purpose, "sha256")
    return hmac.digest(key, signed, "sha256").hex().encode()
