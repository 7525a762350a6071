"""Signed values are a few values of JSON with an HMAC, which this installation alone can write:
`v1.PAYLOAD.MAC`, a JSON object in base64url, and the HMAC-SHA-256 over all that stands before
it, in hexadecimal digits. Pure.

Each use has a key of its own, derived from the installation's secret, so that none is ever
taken for another.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

MAX_SIGNED_BYTES: Final = 4096
_VERSION: Final = b"v1"


def derive_key(secret: bytes, purpose: bytes) -> bytes:
    """secret: the installation's. purpose: what is signed with the key."""
    return hmac.digest(secret, purpose, "sha256")


def sign_values(values: Mapping[str, object], key: bytes) -> bytes:
    payload = json.dumps(values, separators=(",", ":")).encode()
    signed = b"%b.%b" % (_VERSION, base64.urlsafe_b64encode(payload).rstrip(b"="))
    return b"%b.%b" % (signed, _mac(signed, key))


def open_values(signed: bytes, key: bytes) -> dict[str, Any] | None:
    """What was signed; None for what was not, with this key. Nothing is parsed before the
    signature holds.
    """
    text, _, mac = signed.rpartition(b".")
    if len(signed) > MAX_SIGNED_BYTES or not hmac.compare_digest(mac, _mac(text, key)):
        return None
    version, _, payload = text.partition(b".")
    try:
        values = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    except (ValueError, binascii.Error):
        return None
    return values if version == _VERSION and isinstance(values, dict) else None


def _mac(signed: bytes, key: bytes) -> bytes:
    return hmac.new(key, signed, sha256).hexdigest().encode()
