"""Tables of alerts, the audit log, people, keys, sign-ins, spending and the installation."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.domain.operations.access import ApiKey, DashboardSession
from harness.domain.operations.alert_record import AlertRecord, Notified
from harness.domain.operations.audit import AuditEvent
from harness.domain.operations.delivery import Delivery
from harness.domain.operations.idempotent_request import IdempotentRequest
from harness.domain.operations.principals import (
    LOCAL_PRINCIPAL,
    PersonLink,
    Principal,
    PrincipalKind,
)
from harness.domain.operations.spending import PurposeSpending
from harness.store.schema.columns import (
    SIGNATURE,
    Row,
    added_count,
    amount,
    at_least,
    count,
    day,
    free_text,
    json_value,
    metadata,
    not_blank,
    number,
    one_of,
    text,
    time,
    unique_where,
)
from harness.store.schema.signed_tables import sign_rows_of
from harness.store.schema.stored_row import record, record_of

# Append-only, without gaps (triggers), chained by HMAC (harness.domain.operations.audit).
AUDIT_EVENT: Final = record(
    AuditEvent,
    "audit_event",
    sa.Column("number", sa.BigInteger, autoincrement=False),
    at_least("number", 1),
    sa.Index("ix_audit_event_subject", "subject", "number"),
    sa.Index("ix_audit_event_at", "at", "number"),
    key="number",
    free="actor action subject",
)
audit_event = AUDIT_EVENT.table

# folded: the name as `Principal.folded` gives it. issuer, subject: of OpenID Connect.
PRINCIPAL: Final = record(
    Principal,
    "principal",
    free_text("folded"),
    sa.UniqueConstraint("folded"),
    sa.UniqueConstraint("issuer", "subject", name="uq_principal_signed_in"),
    one_of("kind", PrincipalKind),
    not_blank("id"),
    not_blank("name"),
    not_blank("folded"),
    sa.CheckConstraint("(issuer IS NULL) = (subject IS NULL)", name="signed_in_whole"),
    signed=True,
    free="name",
    also=lambda one: {"folded": one.folded},
)
# The database is made with the local operator's row, unsigned; it is the code's
# (`row_signatures._LOCAL`).
principal = sign_rows_of(PRINCIPAL.table, live=PRINCIPAL.table.c.id != LOCAL_PRINCIPAL.id)

# created_by, created_with: the chain of creation is read for the four eyes.
API_KEY: Final = record(
    ApiKey,
    "api_key",
    json_value("opt_outs", nullable=True),
    sa.UniqueConstraint("hash"),
    sa.CheckConstraint("role BETWEEN 1 AND 4", name="role_known"),
    sa.Index("ix_api_key_created_at", "created_at", "id"),
    sa.Index("ix_api_key_principal", "principal"),
    refers={"principal": principal},
    signed=True,
    free="name",
)
api_key = sign_rows_of(API_KEY.table, live=API_KEY.table.c.revoked_at.is_(None))

# Append-only: the newest number of a principal holds. The four eyes rest on it.
PERSON_LINK: Final = record(
    PersonLink,
    "person_link",
    sa.UniqueConstraint("principal", "number"),
    at_least("number", 1),
    not_blank("reason"),
    refers={"principal": principal, "person": principal},
    signed=True,
    free="reason",
)
person_link = PERSON_LINK.table

# A waiting link, an open session or an ended one. Each step happens once (triggers).
DASHBOARD_SESSION: Final = record(
    DashboardSession,
    "dashboard_session",
    sa.UniqueConstraint("link_hash"),
    sa.UniqueConstraint("cookie_hash"),
    sa.CheckConstraint("(link_hash IS NULL) = (link_expires_at IS NULL)", name="link_whole"),
    sa.CheckConstraint(
        "(cookie_hash IS NULL) = (opened_at IS NULL)"
        " AND (cookie_hash IS NULL) = (expires_at IS NULL)",
        name="cookie_whole",
    ),
    sa.CheckConstraint("link_hash IS NOT NULL OR cookie_hash IS NOT NULL", name="has_a_text"),
    sa.CheckConstraint("link_expires_at > created_at", name="link_expires_later"),
    sa.CheckConstraint("expires_at > opened_at", name="expires_later"),
    sa.Index("ix_dashboard_session_created_at", "created_at"),
    sa.Index("ix_dashboard_session_expires_at", "expires_at"),
    refers={"principal": principal, "key": api_key},
    signed=True,
)
dashboard_session = sign_rows_of(DASHBOARD_SESSION.table, decides=False)

# One row. changes: counts changes of keys, providers and switches (trigger), for the etag.
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    text("installation"),
    count("changes"),
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="1"),
    # Revisions go on above it: routers served as much before the database was restored.
    added_count("revision_floor"),
    sa.CheckConstraint("id = 1", name="one_row"),
)

# One row: control's word on which rows a snapshot is made of, in which order of time, which
# data keys were revoked, and where the audit log ended then.
manifest = sa.Table(
    "manifest",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    count("epoch"),
    count("revision"),
    count("changes"),
    text("digest"),
    time("signed_at"),
    text(SIGNATURE),
    text("revoked"),
    text("log_end"),
    sa.CheckConstraint("id = 1", name="one_row"),
    at_least("epoch", 1),
)


def alert_from_row(row: Row) -> AlertRecord:
    sources = {who: at for who, text in row.sources.items() if (at := _time_of_source(text))}
    return record_of(AlertRecord, row, alert, sources=sources)


def _time_of_source(text: object) -> datetime | None:
    """Returns None for a malformed time. Alerts are not signed, and a bad row must not hide the
    others.
    """
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


ALERT: Final = record(
    AlertRecord,
    "alert",
    one_of("notified", Notified),
    at_least("count", 1),
    sa.CheckConstraint("last_seen >= first_seen", name="seen_in_order"),
    sa.CheckConstraint("notified_count BETWEEN 0 AND count", name="notified_count_range"),
    sa.CheckConstraint(
        "(notified IS NULL) = (notified_at IS NULL)"
        " AND (notified IS NULL) = (messages = 0) AND messages >= 0",
        name="notified_when",
    ),
    sa.Index("ix_alert_key", "key", "first_seen"),
    sa.Index("ix_alert_last_seen", "last_seen"),
    sa.Index("ix_alert_resolved_at", "resolved_at"),
    sa.Index("ix_alert_notified", "notified", "kind"),
    # A key has one open alert at a time.
    unique_where("uq_alert_open", sa.text("resolved_at IS NULL"), "key"),
    free="subject key title text",
    read=alert_from_row,
)
alert = ALERT.table

DELIVERY: Final = record(
    Delivery,
    "delivery",
    sa.Column("alert", sa.Text, sa.ForeignKey("alert.id", ondelete="CASCADE"), nullable=False),
    one_of("message", Notified),
    at_least("number", 1),
    at_least("attempts", 0),
    # Waiting, delivered or given up: one of the three.
    sa.CheckConstraint(
        "(next_attempt_at IS NOT NULL AND delivered_at IS NULL AND gave_up_at IS NULL)"
        " OR (next_attempt_at IS NULL AND delivered_at IS NOT NULL AND gave_up_at IS NULL)"
        " OR (next_attempt_at IS NULL AND delivered_at IS NULL AND gave_up_at IS NOT NULL)",
        name="one_state",
    ),
    sa.CheckConstraint("delivered_at IS NULL OR attempts > 0", name="delivered_by_attempt"),
    sa.Index("ix_delivery_next_attempt_at", "next_attempt_at"),
    key="alert number sink",
    free="sink title text last_error",
)
delivery = DELIVERY.table


spending_cap = sa.Table(
    "spending_cap",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    number("cap_usd", nullable=True),
    time("set_at"),
    sa.CheckConstraint("id = 1", name="one_row"),
    amount("cap_usd"),
)
THE_CAP: Final = 1


SPENDING: Final = record(
    PurposeSpending,
    "spending_month",
    day("first_day"),
    amount("spent_usd"),
    *(at_least(column, 0) for column in ("calls", "unpriced")),
    key="first_day purpose",
)
spending_month = SPENDING.table


# Forgotten after a day.
IDEMPOTENT_REQUEST: Final = record(
    IdempotentRequest,
    "idempotent_request",
    sa.Index("ix_idempotent_request_sent_at", "sent_at"),
    key="scope key",
    free="scope key",
)
idempotent_request = IDEMPOTENT_REQUEST.table
