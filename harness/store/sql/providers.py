"""Reads and writes providers' encrypted keys (`SqlCredentials`) and the sign-ins that renew
them (`SqlSignIns`).
"""

from collections.abc import Sequence

import sqlalchemy as sa

from harness.domain.providers.credentials import Credential
from harness.domain.providers.oauth_tokens import SignIn
from harness.store.rules import no_such_provider, sign_in_is_over
from harness.store.schema.providers import (
    credential,
    credential_from_row,
    credential_to_row,
    provider,
    sign_in,
    sign_in_from_row,
    sign_in_to_row,
)
from harness.store.unit_of_work import Unit

CREDENTIALS = sa.select(credential).order_by(
    credential.c.provider, credential.c.position, credential.c.name
)


class SqlCredentials:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def all(self) -> Sequence[Credential]:
        found = self._unit.checked(credential, self._unit.read(CREDENTIALS))
        return [credential_from_row(row) for row in found]

    def put(self, new: Credential) -> None:
        self._unit.serialize()
        known = sa.select(provider.c.name).where(provider.c.name == new.provider)
        if self._unit.read(known).first() is None:
            raise no_such_provider(new.provider)
        values = credential_to_row(new)
        if not self._unit.write_new(credential, values):
            same = sa.and_(credential.c.provider == new.provider, credential.c.name == new.name)
            signed = self._unit.signed(credential, values)
            self._unit.write(sa.update(credential).where(same).values(signed))


class SqlSignIns:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def all(self) -> Sequence[SignIn]:
        found = self._unit.read(sa.select(sign_in).order_by(sign_in.c.provider))
        return [sign_in_from_row(row) for row in found]

    def start(self, new: SignIn) -> None:
        self._unit.serialize()
        known = sa.select(provider.c.name).where(provider.c.name == new.provider)
        if self._unit.read(known).first() is None:
            raise no_such_provider(new.provider)
        values = sign_in_to_row(new)
        if not self._unit.write_new(sign_in, values):
            same = sign_in.c.provider == new.provider
            self._unit.write(sa.update(sign_in).where(same).values(values))

    def save(self, changed: SignIn) -> None:
        same = sa.and_(sign_in.c.provider == changed.provider, sign_in.c.id == changed.id)
        values = sign_in_to_row(changed)
        if not self._unit.write(sa.update(sign_in).where(same).values(values)):
            raise sign_in_is_over(changed.provider)

    def end(self, provider: str) -> bool:
        return self._unit.write(sa.delete(sign_in).where(sign_in.c.provider == provider)) > 0
