"""Messages of sessions are encrypted where the settings say so, on their way into the store,
and decrypted on their way out; `reencrypt_messages` belongs to a rotation of encryption keys.
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

_AT_A_TIME: Final = 500


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


def reencrypt_messages(ctx: Context, tx: Transaction) -> int:
    """Encrypt with the newest key; how many. An answer under way is encrypted with it when it
    ends; what is kept by idempotency key is forgotten instead.

    Raises DecryptionFailed, which names the message.
    """
    count, after = 0, ""
    while records := tx.session_messages.encrypted(after=after, limit=_AT_A_TIME):
        for record in records:
            try:
                body = ctx.cipher.reencrypt(record.body)
            except DecryptionFailed as error:
                message = record.message
                place = f"message {message.position} of session {message.session}"
                raise DecryptionFailed(f"{place}: {error}") from None
            tx.session_messages.replace_body(record.message.id, body)
        count, after = count + len(records), records[-1].message.id
    tx.idempotent_answers.forget_encrypted()
    return count
