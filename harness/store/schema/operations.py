"""Tables of alerts (one open at a time per key) and of the deliveries of their messages to each
sink, of the audit log, principals and who of them is one person, API keys, sign-ins to the
dashboard, the installation's counters (`meta`) and its leader; their rows as domain objects
and back.
"""

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.domain.operations.access import ApiKey, DashboardSession
from harness.domain.operations.alert_record import AlertRecord, Notified
from harness.domain.operations.audit import AuditEvent
from harness.domain.operations.delivery import Delivery
from harness.domain.operations.idempotent_request import IdempotentRequest
from harness.domain.operations.principals import PersonLink, Principal, PrincipalKind
from harness.domain.operations.spending import PurposeSpending
from harness.store.schema.columns import (
    Row,
    added_count,
    amount,
    at_least,
    columns_of,
    count,
    day,
    free_text,
    json_value,
    metadata,
    not_blank,
    number,
    one_of,
    signature,
    text,
    time,
    unique_where,
)
from harness.store.schema.stored_row import Record, record_of

# Append-only, without gaps (triggers), chained by HMAC (harness.domain.operations.audit).
audit_event = sa.Table(
    "audit_event",
    metadata,
    *columns_of(
        AuditEvent,
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        free=("actor", "action", "subject"),
    ),
    at_least("number", 1),
    sa.Index("ix_audit_event_subject", "subject", "number"),
    sa.Index("ix_audit_event_at", "at", "number"),
)

# folded: the name as `Principal.folded` gives it. issuer, subject: of OpenID Connect.
principal = sa.Table(
    "principal",
    metadata,
    *columns_of(
        Principal,
        sa.Column("id", sa.Text, primary_key=True),
        free_text("folded"),
        signature(),
        free=("name",),
    ),
    sa.UniqueConstraint("folded"),
    sa.UniqueConstraint("issuer", "subject", name="uq_principal_signed_in"),
    one_of("kind", PrincipalKind),
    not_blank("id"),
    not_blank("name"),
    not_blank("folded"),
    sa.CheckConstraint("(issuer IS NULL) = (subject IS NULL)", name="signed_in_whole"),
)

# created_by, created_with: the chain of creation is read for the four eyes.
api_key = sa.Table(
    "api_key",
    metadata,
    *columns_of(
        ApiKey,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("principal", sa.ForeignKey(principal.c.id), nullable=True),
        json_value("opt_outs", nullable=True),
        signature(),
        free=("name",),
    ),
    sa.UniqueConstraint("hash"),
    sa.CheckConstraint("role BETWEEN 1 AND 4", name="role_known"),
    sa.Index("ix_api_key_created_at", "created_at", "id"),
    sa.Index("ix_api_key_principal", "principal"),
)

# Append-only: the newest number of a principal holds. The four eyes rest on it.
person_link = sa.Table(
    "person_link",
    metadata,
    *columns_of(
        PersonLink,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("principal", sa.ForeignKey(principal.c.id), nullable=False),
        sa.Column("person", sa.ForeignKey(principal.c.id), nullable=False),
        signature(),
        free=("reason",),
    ),
    sa.UniqueConstraint("principal", "number"),
    at_least("number", 1),
    not_blank("reason"),
)

# A waiting link, an open session or an ended one. Each step happens once (triggers).
dashboard_session = sa.Table(
    "dashboard_session",
    metadata,
    *columns_of(
        DashboardSession,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("principal", sa.ForeignKey(principal.c.id), nullable=False),
        sa.Column("key", sa.ForeignKey(api_key.c.id), nullable=True),
        signature(),
    ),
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
)

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

alert = sa.Table(
    "alert",
    metadata,
    *columns_of(
        AlertRecord,
        sa.Column("id", sa.Text, primary_key=True),
        free=("subject", "key", "title", "text"),
    ),
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
)

delivery = sa.Table(
    "delivery",
    metadata,
    *columns_of(
        Delivery,
        sa.Column(
            "alert", sa.Text, sa.ForeignKey("alert.id", ondelete="CASCADE"), nullable=False
        ),
        free=("sink", "title", "text", "last_error"),
    ),
    sa.PrimaryKeyConstraint("alert", "number", "sink"),
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


ALERT: Final = Record.by_fields(alert, AlertRecord, read=alert_from_row)
AUDIT_EVENT: Final = Record.by_fields(audit_event, AuditEvent)
PRINCIPAL: Final = Record.by_fields(
    principal, Principal, also=lambda one: {"folded": one.folded}
)
API_KEY: Final = Record.by_fields(api_key, ApiKey)
PERSON_LINK: Final = Record.by_fields(person_link, PersonLink)
DASHBOARD_SESSION: Final = Record.by_fields(dashboard_session, DashboardSession)
DELIVERY: Final = Record.by_fields(delivery, Delivery)


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


spending_month = sa.Table(
    "spending_month",
    metadata,
    *columns_of(
        PurposeSpending,
        day("first_day"),
    ),
    sa.PrimaryKeyConstraint("first_day", "purpose"),
    amount("spent_usd"),
    *(at_least(column, 0) for column in ("calls", "unpriced")),
)


SPENDING: Final = Record.by_fields(spending_month, PurposeSpending)


# Forgotten after a day.
idempotent_request = sa.Table(
    "idempotent_request",
    metadata,
    *columns_of(IdempotentRequest, free=("scope", "key")),
    sa.PrimaryKeyConstraint("scope", "key"),
    sa.Index("ix_idempotent_request_sent_at", "sent_at"),
)


IDEMPOTENT_REQUEST: Final = Record.by_fields(idempotent_request, IdempotentRequest)
