"""Alert sinks that keep their messages in memory (`RecordingSinks`)."""

from collections.abc import Sequence

from harness.domain.errors import DeliveryFailed
from harness.domain.operations.delivery import AlertMessage


class RecordingSinks:
    """For tests: keeps the messages. down: names of sinks that take nothing now."""

    def __init__(self, *names: str) -> None:
        self.down: set[str] = set()
        self.kept: dict[str, list[AlertMessage]] = {name: [] for name in names}

    def names(self) -> Sequence[str]:
        return list(self.kept)

    def send(self, sink: str, message: AlertMessage) -> None:
        if sink in self.down or sink not in self.kept:
            raise DeliveryFailed(f"the sink {sink!r} does not answer")
        self.kept[sink].append(message)
