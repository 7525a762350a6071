"""Turns messages of sessions into their stored form, and back."""

from harness.domain.agents.message import (
    MessageRecord,
    SessionMessage,
    decode_body,
    encode_body,
    without_body,
)
from harness.ports import Transaction


def encode_message(message: SessionMessage) -> MessageRecord:
    """Turns a message into its stored form. Raises InputError for content that is no JSON."""
    return MessageRecord(without_body(message), encode_body(message))


def read_conversation(tx: Transaction, session: str) -> list[SessionMessage]:
    """All of a session's messages, by position. Raises DatabaseUnusable for a damaged one."""
    return [decode_body(record) for record in tx.session_messages.list(session)]
