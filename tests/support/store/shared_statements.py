"""Compiles each SQL statement once in a test process, not once for each test's engine: that
took a sixth of a test's CPU.
"""

from collections.abc import Hashable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.util import LRUCache

from harness.store import content_cipher

# The product has some hundreds of statements; tests add their own.
_COMPILED: Final[LRUCache[Any, Any]] = LRUCache(4_000)


class SharedStatements(dict[Any, Any]):
    """SQLAlchemy's cache of one engine. It asks by (dialect, statement, ...)."""

    def get(self, key: Any, default: Any = None) -> Any:
        return _COMPILED.get((_compiles_like(key[0]), *key[1:]), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        _COMPILED[_compiles_like(key[0]), *key[1:]] = compiled


def _compiles_like(dialect: sa.Dialect) -> Hashable:
    """Dialects of one name compile alike. One with a cipher is for itself: what it compiled
    goes through its cipher.
    """
    return dialect.name if content_cipher.cipher_of(dialect) is None else dialect


def share_statements() -> None:
    """Lets all engines that this process makes from now on share what they compile."""
    create = sa.create_engine

    def create_sharing(*arguments: Any, **options: Any) -> sa.Engine:
        engine = create(*arguments, **options)
        engine.update_execution_options(compiled_cache=SharedStatements())
        return engine

    sa.create_engine = create_sharing
