"""Requests that were sent with an Idempotency-Key. They are forgotten after a day."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.frame.idempotent_request import IdempotentRequest
from harness.frame.records.record import record
from harness.frame.records.repository import Records

# Forgotten after a day.
IDEMPOTENT_REQUEST: Final = record(
    IdempotentRequest,
    "idempotent_request",
    sa.Index("ix_idempotent_request_sent_at", "sent_at"),
    key="scope key",
    free="scope key",
)

idempotent_request = IDEMPOTENT_REQUEST.table


class IdempotentRequests(Records[IdempotentRequest]):
    record = IDEMPOTENT_REQUEST

    def find(self, scope: str, key: str) -> IdempotentRequest | None:
        columns = idempotent_request.c
        return self._first(self._select(columns.scope == scope, columns.key == key))

    def add_new(self, new: IdempotentRequest) -> bool:
        """Adds a request; False where its key is taken."""
        return self._tx.write_new(idempotent_request, self.record.write(new))

    def forget(self, until: datetime) -> int:
        return self._delete(idempotent_request.c.sent_at <= until)
