"""Encrypts what people and models wrote on its way into a column of content, and decrypts it on
its way out. `columns.ContentText` and `columns.ContentJson` are the types of these columns; a
store registers its cipher with the dialect of its engine.
"""

from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa

if TYPE_CHECKING:
    # The columns of all tables import this module, and need no ports.
    from harness.ports import Cipher

# Before a token, so that triggers and readers know one. A text of its own that begins so is
# stored with PLAIN before it.
ENCRYPTED: Final = "swapgate-encrypted:"
PLAIN: Final = "swapgate-plain:"


class ContentCipher:
    """Turns content into what is stored, and back. encrypts: whether new content is encrypted;
    what is encrypted already is read either way.
    """

    def __init__(self, cipher: "Cipher", *, encrypts: bool) -> None:
        self._cipher = cipher
        self.encrypts = encrypts

    def to_stored(self, text: str) -> str:
        """Encrypts a text, or marks it as plain where it looks encrypted. The empty text stays:
        that content was blanked is no secret. Raises ConfigError without encryption keys.
        """
        if not text:
            return text
        if self.encrypts:
            return ENCRYPTED + self._cipher.encrypt(text)
        return PLAIN + text if text.startswith((ENCRYPTED, PLAIN)) else text

    def from_stored(self, stored: str) -> str:
        """Reads a text back. Raises DecryptionFailed, ConfigError without encryption keys."""
        if stored.startswith(ENCRYPTED):
            return self._cipher.decrypt(stored[len(ENCRYPTED) :])
        return stored.removeprefix(PLAIN)

    def renew(self, stored: str) -> str | None:
        """Encrypts a stored text with the newest key; None where nothing is to be done. Raises
        as `from_stored`.
        """
        if stored.startswith(ENCRYPTED):
            token = stored[len(ENCRYPTED) :]
            if self._cipher.is_newest(token):
                return None
            return ENCRYPTED + self._cipher.reencrypt(token)
        if not stored or not self.encrypts:
            return None
        return self.to_stored(self.from_stored(stored))


_OF_DIALECT: Final[WeakKeyDictionary[sa.Dialect, ContentCipher]] = WeakKeyDictionary()


def register(engine: sa.Engine, contents: ContentCipher) -> None:
    """Lets the columns of content go through a cipher on this engine."""
    _OF_DIALECT[engine.dialect] = contents


def cipher_of(dialect: sa.Dialect) -> ContentCipher | None:
    """Returns the cipher of an engine's dialect; None where values go as they are stored, as
    in migrations and for signatures.
    """
    return _OF_DIALECT.get(dialect)
