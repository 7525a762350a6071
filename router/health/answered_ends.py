"""Reads the end of a target's model from the headers of its answers, and shares it.

Most requests cost nothing here. `AccountWatch` marks each target once a second, and the router
reads only the next answer of a marked target. The thread that follows the store writes the
statements, and gives all stored ones to the snapshot's holder, which sends them to clients.
"""

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from harness.frame.ports import Clock
from harness.providers.models.end_dates import parse_end_headers
from harness.providers.models.model_ends import (
    EndStatement,
    group_current,
    merge_answer,
    state_answer,
)
from router.frame.database import RouterDatabase
from router.snapshot.compiled import CompiledTarget
from router.snapshot.end_headers import Statements

# How often a worker exchanges statements with the database.
SHARE_EVERY_S: Final = 5.0


class AnsweredEnds:
    """The statements in the answers of one worker's targets. Thread-safe.

    on_statements: gets all stored statements, of all sources.
    """

    def __init__(
        self,
        on_statements: Callable[[Statements], None],
        counters: Counter[str],
        clock: Clock,
    ) -> None:
        self._on_statements = on_statements
        self._counters = counters
        self._clock = clock
        self._lock = threading.Lock()
        self._new: dict[str, EndStatement] = {}  # by the target's id
        self._shared_at_s = -math.inf

    def note_answer(
        self, upstream: CompiledTarget, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Reads a good answer's headers. Only a provider writes them, so no caller can."""
        dates, malformed = parse_end_headers(headers)
        if malformed:
            self._counters["end_headers_malformed"] += malformed
            if dates.is_empty:
                return  # it states something that the router cannot read, so it withdraws none
        statement = state_answer(upstream.id, upstream.provider.name, dates, self._clock.now())
        with self._lock:
            # Of several servers of a provider, one may lack the header of the others.
            if not dates.is_empty or upstream.id not in self._new:
                self._new[upstream.id] = statement

    def share(self, store: RouterDatabase) -> None:
        """Stores new statements, and passes all stored ones on. Raises StoreUnavailable."""
        now_s = self._clock.monotonic()
        if now_s - self._shared_at_s < SHARE_EVERY_S:
            return
        with store.read() as records:
            stored = {(one.target, one.kind): one for one in records.end_statements.all()}
        with self._lock:
            new = dict(self._new)
        changed = [
            merged
            for target, statement in new.items()
            if (merged := merge_answer(stored.get((target, statement.kind)), statement))
            is not None
        ]
        if changed:
            with store.write() as records:
                records.end_statements.note(changed)
            stored |= {(one.target, one.kind): one for one in changed}
        self._shared_at_s = now_s
        with self._lock:
            # Only now, so that a database that is away loses no statement.
            self._new = {
                target: statement
                for target, statement in self._new.items()
                if statement is not new.get(target)
            }
        self._on_statements(group_current(stored.values()))
