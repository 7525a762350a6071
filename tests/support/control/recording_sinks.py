"""Alert sinks that keep their messages."""

from collections.abc import Sequence

from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alert_record import AlertMessage
from harness.frame.errors import DeliveryFailed


class RecordingSinks:
    """Keeps the messages. down: names of sinks that take nothing. only: kinds by sink."""

    def __init__(self, *names: str) -> None:
        self.down: set[str] = set()
        self.only: dict[str, set[AlertKind]] = {}
        self.kept: dict[str, list[AlertMessage]] = {name: [] for name in names}

    def names(self) -> Sequence[str]:
        return list(self.kept)

    def takes(self, sink: str, kind: AlertKind) -> bool:
        return kind in self.only.get(sink, {kind})

    def send(self, sink: str, message: AlertMessage) -> None:
        if sink in self.down or sink not in self.kept:
            raise DeliveryFailed(f"the sink {sink!r} does not answer")
        self.kept[sink].append(message)
