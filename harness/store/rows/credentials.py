"""Converts providers' encrypted keys and the sign-ins that renew them to column values and
back.
"""

from dataclasses import fields

from harness.domain.providers.credentials import Credential
from harness.domain.providers.oauth_tokens import SignIn
from harness.store.rows import Row, Values


def of_credential(credential: Credential) -> Values:
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


def credential(row: Row) -> Credential:
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


def of_sign_in(sign_in: SignIn) -> Values:
    return {each.name: getattr(sign_in, each.name) for each in fields(SignIn)}


def sign_in(row: Row) -> SignIn:
    return SignIn(**{each.name: getattr(row, each.name) for each in fields(SignIn)})
