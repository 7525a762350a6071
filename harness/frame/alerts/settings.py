"""Where alerts go, and how long they are kept."""

from dataclasses import dataclass, field
from typing import Literal

from harness.frame.alerts.alert import ALERT_RULES, AlertKind, Severity


@dataclass(frozen=True, slots=True)
class AlertSink:
    """Says where alerts go: an apprise URL (`url`, or in the variable `url_env`), or a webhook.

    A URL of apprise has passwords in it: it is never logged, stored or shown. Where a variable
    is not set, the file that NAME_FILE names is read.
    """

    name: str = ""  # shown in messages and errors; by default its kind and number
    url: str = field(default="", repr=False)  # of apprise; it holds passwords, prefer `url_env`
    url_env: str = ""  # name of the environment variable with the apprise URL
    webhook: str = ""  # address that gets a signed HTTP POST
    secret_env: str = ""  # name of the variable with the secret that signs it
    severity: Literal["info", "warning", "critical"] = "info"  # the least that it gets
    # Which kinds it gets, such as route_down (docs/reference/events.md); empty for all.
    kinds: tuple[AlertKind, ...] = ()

    def takes(self, kind: AlertKind) -> bool:
        severe = ALERT_RULES[kind].severity >= Severity[self.severity.upper()]
        return severe and (not self.kinds or kind in self.kinds)


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Where alerts are delivered, and how long they are kept."""

    sinks: tuple[AlertSink, ...] = ()  # where messages go
    deliver_interval_s: float = 2.0  # how often due messages are sent
    timeout_s: float = 10.0  # for one delivery
    keep_days: float = 90.0  # how long alerts that are over are kept
