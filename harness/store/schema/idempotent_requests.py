"""The table of requests to the management API that came with an `Idempotency-Key`; its rows as
domain objects and back.
"""

from dataclasses import asdict

import sqlalchemy as sa

from harness.domain.operations.idempotent_request import IdempotentRequest
from harness.store.schema.columns import Row, Values, count, free_text, metadata, text, time

# Forgotten after a day. owner: of an attempt, which alone may let the request take effect.
idempotent_request = sa.Table(
    "idempotent_request",
    metadata,
    free_text("scope"),
    free_text("key"),
    text("request_hash"),
    text("owner"),
    time("claimed_at"),
    sa.Column("took_effect", sa.Boolean, nullable=False),
    count("status", nullable=True),
    text("body"),
    sa.PrimaryKeyConstraint("scope", "key"),
    sa.CheckConstraint("(status IS NULL) = (body = '')", name="answered_whole"),
    sa.Index("ix_idempotent_request_claimed_at", "claimed_at"),
)


def request_to_row(request: IdempotentRequest) -> Values:
    return asdict(request)


def request_from_row(row: Row) -> IdempotentRequest:
    return IdempotentRequest(**row._asdict())
