"""Verifies a proof file with public keys alone: no database, no secret, no configuration."""

from pathlib import Path

from harness.control.proposals.proof_check import ProofFindings, check_proof
from harness.domain.errors import InputError
from harness.domain.operations.keyring import parse_keyring
from harness.domain.proposals.proof import parse_proof
from harness.runtime.signing import Ed25519Signatures
from harness.store.signing.proof_rows import build_proven, find_faults


def verify_proof(file: Path, key: Path) -> ProofFindings:
    """Verifies a proof. key: a keyring, as `signing.pub` is. Raises InputError for a file that
    is no proof, ConfigError for one that is no keyring.
    """
    keyring = parse_keyring(_text(key), str(key))
    try:
        proof = parse_proof(_text(file))
    except InputError as error:
        raise InputError(f"{file}, {error}") from None
    try:
        faults = find_faults(proof, Ed25519Signatures(lambda: keyring))
    except (AttributeError, LookupError, ValueError, TypeError) as error:
        raise InputError(f"{file}: its rows are not those of a proof: {error}") from None
    if faults:
        return ProofFindings((), tuple(faults))
    try:
        return check_proof(build_proven(proof, keyring))
    except (AttributeError, LookupError, ValueError, TypeError) as error:
        return ProofFindings((), (f"its rows are not those of one swap: {error}",))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
