"""Reads and writes requests to the management API that came with an `Idempotency-Key`
(`SqlIdempotentRequests`).
"""

from datetime import datetime

import sqlalchemy as sa

from harness.domain.operations.idempotent_request import IdempotentRequest
from harness.store.schema.idempotent_requests import (
    idempotent_request,
    request_from_row,
    request_to_row,
)
from harness.store.unit_of_work import Unit

_COLUMNS = idempotent_request.c


def _same(request: IdempotentRequest) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _COLUMNS.scope == request.scope,
        _COLUMNS.key == request.key,
        _COLUMNS.owner == request.owner,
    )


class SqlIdempotentRequests:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def get(self, scope: str, key: str) -> IdempotentRequest | None:
        query = sa.select(idempotent_request).where(
            _COLUMNS.scope == scope, _COLUMNS.key == key
        )
        row = self._unit.read(query).first()
        return None if row is None else request_from_row(row)

    def add(self, new: IdempotentRequest) -> bool:
        return self._unit.write_new(idempotent_request, request_to_row(new))

    def take_over(self, known: IdempotentRequest, new: IdempotentRequest) -> bool:
        return self._change(
            known, _COLUMNS.took_effect.is_(False), owner=new.owner, claimed_at=new.claimed_at
        )

    def note_effect(self, request: IdempotentRequest) -> bool:
        return self._change(request, took_effect=True)

    def answer(self, request: IdempotentRequest) -> bool:
        return self._change(request, status=request.status, body=request.body)

    def _change(
        self, request: IdempotentRequest, *where: sa.ColumnElement[bool], **values: object
    ) -> bool:
        changed = sa.update(idempotent_request).where(*_same(request), *where).values(values)
        return self._unit.write(changed) == 1

    def release(self, request: IdempotentRequest, *, with_effect: bool) -> None:
        which = sa.delete(idempotent_request).where(*_same(request))
        if not with_effect:
            which = which.where(_COLUMNS.took_effect.is_(False))
        self._unit.write(which)

    def forget(self, before: datetime) -> int:
        old = _COLUMNS.claimed_at < before
        return self._unit.write(sa.delete(idempotent_request).where(old))
