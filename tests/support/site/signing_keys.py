"""The tests' signing keys: one pair for each purpose, with a signer and a verifier."""

from base64 import urlsafe_b64encode
from typing import Final

from harness.frame.signing.ed25519 import Ed25519Signatures, public_key
from harness.frame.signing.keyring import KeyPurpose, format_keyring

PRIVATE: Final = {
    purpose: urlsafe_b64encode(purpose.value.encode().ljust(32, b".")).decode()
    for purpose in KeyPurpose
}
PUBLIC: Final = {purpose: public_key(text, purpose) for purpose, text in PRIVATE.items()}
KEYRING: Final = {key.id: key for key in PUBLIC.values()}

CONTROL: Final = Ed25519Signatures(lambda: KEYRING, lambda: PRIVATE[KeyPurpose.CONTROL])
WORKER: Final = Ed25519Signatures(lambda: KEYRING, lambda: PRIVATE[KeyPurpose.WORKER])
# As a router has them.
VERIFIER: Final = Ed25519Signatures(lambda: KEYRING)

# As they stand in the environment of processes that share a store with the test.
ENVIRONMENT: Final = {
    "SWAPPROOF_SIGNING_KEY": PRIVATE[KeyPurpose.CONTROL],
    "SWAPPROOF_WORKER_SIGNING_KEY": PRIVATE[KeyPurpose.WORKER],
    "SWAPPROOF_SIGNING_KEYRING": format_keyring(KEYRING.values()),
}
