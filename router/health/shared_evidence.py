"""The evidence of targets that all workers of a machine share: good answers, and endpoints.

It tells a new worker that a target serves chats, so that a refusal of embeddings does not
count against its chats. `target_health` keeps the evidence of one worker.
"""

from harness.frame.people.limits import RateState
from harness.frame.ports import RateBook
from harness.providers.models.capabilities import Endpoint
from router.recording.shared_files import SharedMarks


class SharedEvidence:
    """Reads and writes the evidence, for one event loop.

    book: until when users' good answers count, by target. marks: which target has served which
    endpoint.
    """

    def __init__(self, book: RateBook, marks: SharedMarks) -> None:
        self._book = book
        self._marks = marks
        self._noted: set[tuple[str, Endpoint]] = set()  # by this worker

    def note_served(self, target: str, endpoint: Endpoint) -> None:
        """Notes that a target answered at an endpoint."""
        if (target, endpoint) not in self._noted:
            self._noted.add((target, endpoint))
            self._marks.add(_name_served_mark(target, endpoint))

    def served_endpoints(self, target: str) -> frozenset[Endpoint]:
        """Returns the endpoints at which a target has answered, also before this process."""
        return frozenset(
            endpoint
            for endpoint in Endpoint
            if (target, endpoint) in self._noted
            or self._marks.has(_name_served_mark(target, endpoint))
        )

    def note_good_until(self, target: str, until: float) -> None:
        """Notes until when a user's good answer counts; 0 after a counted failure."""
        self._book.change(_name_good_answer(target), lambda _: RateState(until))

    def has_good_answer(self, target: str, now: float) -> bool:
        """Returns whether a user's good answer counts now. Times are monotonic seconds."""
        return self._book.change(_name_good_answer(target), lambda state: state)[0] > now


def _name_good_answer(target: str) -> str:
    return f"well:{target}"


def _name_served_mark(target: str, endpoint: Endpoint) -> str:
    return f"served:{target}:{endpoint.value}"
