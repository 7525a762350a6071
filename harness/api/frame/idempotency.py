"""`IdempotencyCache` makes the same request with the same `Idempotency-Key` have one effect and
the same answer; with another body it is refused.

Kept in this process for a day. A restart forgets: after one, look before sending again.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from harness.api.frame.json_answers import JsonAnswer
from harness.domain.errors import InputError
from harness.ports import Clock

KEEP_S: Final = 86_400.0
ENTRIES: Final = 10_000
REPLAYED: Final = "idempotent-replayed"


@dataclass
class _Entry:
    at: float
    lock: Lock = field(default_factory=Lock)
    request: str = ""
    status: int = 0
    body: bytes | None = None


class IdempotencyCache:
    """Keeps answers by (who, what, key). Thread-safe: of two at once, the second waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._entries: OrderedDict[tuple[str, ...], _Entry] = OrderedDict()

    def once(
        self, scope: tuple[str, ...], request: str, do: Callable[[], JsonAnswer]
    ) -> JsonAnswer:
        """The first answer for this scope. A call that raises had no effect and is not kept.

        request: the body in a canonical form. Raises InputError when it is not the first one's.
        """
        entry = self._entry(scope)
        with entry.lock:
            if entry.body is None:
                answer = do()
                entry.request, entry.status, entry.body = (
                    request,
                    answer.status_code,
                    bytes(answer.body),
                )
                return answer
            if entry.request != request:
                raise InputError(
                    "this Idempotency-Key came before with another body: take a new key"
                )
            return _replayed_answer(entry.status, entry.body)

    def _entry(self, scope: tuple[str, ...]) -> _Entry:
        now = self._clock.monotonic()
        with self._lock:
            while self._entries:
                oldest = next(iter(self._entries.values()))
                if now - oldest.at < KEEP_S and len(self._entries) < ENTRIES:
                    break
                self._entries.popitem(last=False)
            return self._entries.setdefault(scope, _Entry(now))


def _replayed_answer(status: int, body: bytes) -> JsonAnswer:
    answer = JsonAnswer(None, status_code=status, headers={REPLAYED: "true"})
    answer.body = body
    answer.headers["content-length"] = str(len(body))
    return answer
