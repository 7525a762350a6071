"""Encrypts all stored content with the newest key (`renew_content`), and what is still plain
where the settings ask for encryption. It goes in small units of work: routers and workers write
meanwhile, and one that was interrupted goes on where it is run again.
"""

from collections.abc import Sequence
from typing import Any, Final

from harness.control.agents import messages
from harness.control.context import Context

_AT_A_TIME: Final = 200


def renew_content(ctx: Context) -> int:
    """Encrypts what is not encrypted with the newest key; how many values.

    It goes over the tables until it finds none: a value that was encrypted just before the key
    changed may be stored just after. Raises DecryptionFailed, which names the row; what was
    done stays done.
    """
    count = 0
    while found := _renew_once(ctx):
        count += found
    if count:
        # What the old key made is in SQLite's log, too.
        ctx.store.drop_deleted()
    return count


def _renew_once(ctx: Context) -> int:
    with ctx.store.read() as tx:
        tables = tx.contents.tables()
    count = messages.renew_messages(ctx)
    for table in tables:
        after: Sequence[Any] = ()
        while True:
            with ctx.store.write() as tx:
                changed, after = tx.contents.renew(table, after=after, limit=_AT_A_TIME)
            count += changed
            if not after:
                break
    return count
