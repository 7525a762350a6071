"""Converts providers' encrypted keys and the sign-ins that renew them to column values and
back.
"""

from dataclasses import fields

from harness.domain.providers.credentials import Credential
from harness.domain.providers.oauth_tokens import SignIn
from harness.store.rows import Row, Values


def credential_to_row(credential: Credential) -> Values:
    return {
        "provider": credential.provider,
        "name": credential.name,
        "ciphertext": credential.ciphertext,
        "position": credential.position,
        "created_at": credential.created_at,
        "updated_at": credential.updated_at,
        "created_by": credential.created_by,
        "expires_at": credential.expires_at,
    }


def credential_from_row(row: Row) -> Credential:
    return Credential(
        provider=row.provider,
        name=row.name,
        ciphertext=row.ciphertext,
        position=row.position,
        created_at=row.created_at,
        updated_at=row.updated_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
    )


def sign_in_to_row(sign_in: SignIn) -> Values:
    return {each.name: getattr(sign_in, each.name) for each in fields(SignIn)}


def sign_in_from_row(row: Row) -> SignIn:
    return SignIn(**{each.name: getattr(row, each.name) for each in fields(SignIn)})
