"""Keys of providers in SQL."""

from collections.abc import Sequence

import sqlalchemy as sa

from harness.domain.credentials import Credential
from harness.store.rows import credentials as rows
from harness.store.rules import no_such_provider
from harness.store.sql.unit import Unit
from harness.store.tables.credentials import credential
from harness.store.tables.routing import provider

IN_ORDER = sa.select(credential).order_by(
    credential.c.provider, credential.c.position, credential.c.name
)


class SqlCredentials:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def all(self) -> Sequence[Credential]:
        return [rows.credential(row) for row in self._unit.read(IN_ORDER)]

    def put(self, new: Credential) -> None:
        self._unit.serialize()
        known = sa.select(provider.c.name).where(provider.c.name == new.provider)
        if self._unit.read(known).first() is None:
            raise no_such_provider(new.provider)
        values = rows.of_credential(new)
        if not self._unit.write_new(credential, values):
            same = sa.and_(credential.c.provider == new.provider, credential.c.name == new.name)
            self._unit.write(sa.update(credential).where(same).values(values))
