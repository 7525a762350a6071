"""Compiles each SQL statement once in a test process: a sixth of a test's CPU."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.util import LRUCache

# The product has some hundreds of statements; tests add their own.
_COMPILED: Final[LRUCache[Any, Any]] = LRUCache(4_000)


class SharedStatements(dict[Any, Any]):
    """SQLAlchemy's cache of one engine. It asks by (dialect, statement, ...)."""

    def get(self, key: Any, default: Any = None) -> Any:
        return _COMPILED.get((key[0].name, *key[1:]), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        _COMPILED[key[0].name, *key[1:]] = compiled


def share_statements() -> None:
    """Lets all engines that this process makes from now on share what they compile."""
    create = sa.create_engine

    def create_sharing(*arguments: Any, **options: Any) -> sa.Engine:
        engine = create(*arguments, **options)
        engine.update_execution_options(compiled_cache=SharedStatements())
        return engine

    sa.create_engine = create_sharing
