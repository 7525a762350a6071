"""The bytes that are signed of a row of the database, and the text of a signature:
`<key id>.<base64url>`.
"""

from collections.abc import Mapping
from typing import Final

from harness.frame.content_hash import canonical_json
from harness.frame.errors import SignatureInvalid
from harness.frame.signing.keyring import decode_base64url, encode_base64url

# What is signed can be nothing else than a row of Swapgate's, in this format.
SIGNING_DOMAIN: Final = b"swapgate row 1\n"


def row_payload(
    table: str, installation: str, row: Mapping[str, object], **more: object
) -> bytes:
    """The bytes that are signed of a row: its stored columns, and what else it stands for."""
    whole = {"table": table, "installation": installation, "row": row, **more}
    return SIGNING_DOMAIN + canonical_json(whole).encode("utf-8", "surrogatepass")


def join_signature(key: str, signature: bytes) -> str:
    return f"{key}.{encode_base64url(signature)}"


def split_signature(signature: str) -> tuple[str, bytes]:
    """Splits a signature into its key's id and its bytes. Raises SignatureInvalid."""
    key, dot, text = signature.partition(".")
    try:
        if dot:
            return key, decode_base64url(text)
    except ValueError:
        pass
    raise SignatureInvalid("its signature is not one: `<key id>.<base64url>` is expected")
