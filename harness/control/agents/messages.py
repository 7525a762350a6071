"""Messages of sessions are encrypted where the settings say so, on their way into the store,
and decrypted on their way out; `renew_messages` belongs to a rotation of encryption keys.
"""

from typing import Final

from harness.control.context import Context
from harness.domain.agents.message import (
    MessageRecord,
    SessionMessage,
    decode_body,
    encode_body,
    without_body,
)
from harness.domain.errors import DecryptionFailed
from harness.ports import Transaction

_AT_A_TIME: Final = 200


def encode_message(ctx: Context, message: SessionMessage) -> MessageRecord:
    """Turns a message into its stored form. Raises InputError for content that is no JSON,
    ConfigError without encryption keys.
    """
    body, encrypts = encode_body(message), ctx.agents.encrypt
    whole = ctx.cipher.encrypt(body) if encrypts else body
    return MessageRecord(without_body(message), whole, encrypted=encrypts)


def decode_message(ctx: Context, record: MessageRecord) -> SessionMessage:
    """Reads a message back from its stored form. Raises DecryptionFailed, ConfigError without
    encryption keys.
    """
    text = ctx.cipher.decrypt(record.body) if record.encrypted else record.body
    return decode_body(record, text)


def read_conversation(ctx: Context, tx: Transaction, session: str) -> list[SessionMessage]:
    """All of a session's messages, by position."""
    return [decode_message(ctx, record) for record in tx.session_messages.list(session)]


def renew_messages(ctx: Context) -> int:
    """Encrypt messages with the newest key, and where the settings say so those that are plain;
    how many. An answer under way is encrypted with it when it ends; what is kept by idempotency
    key is forgotten instead.

    Raises DecryptionFailed, which names the message.
    """
    count, after = 0, ""
    while True:
        with ctx.store.write() as tx:
            records = tx.session_messages.ended(after=after, limit=_AT_A_TIME)
            for record in records:
                body = _renewed_body(ctx, record)
                if body is not None:
                    tx.session_messages.replace_body(record.message.id, body)
                    count += 1
            if len(records) < _AT_A_TIME:
                return count
        after = records[-1].message.id


def _renewed_body(ctx: Context, record: MessageRecord) -> str | None:
    """None where the body is as it should be."""
    if not record.encrypted:
        return ctx.cipher.encrypt(record.body) if ctx.agents.encrypt else None
    if ctx.cipher.is_newest(record.body):
        return None
    try:
        return ctx.cipher.reencrypt(record.body)
    except DecryptionFailed as error:
        message = record.message
        place = f"message {message.position} of session {message.session}"
        raise DecryptionFailed(f"{place}: {error}") from None
