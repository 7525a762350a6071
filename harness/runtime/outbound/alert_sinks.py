"""Sends alerts to the configured sinks, each by apprise or as a signed webhook, with URLs and
secrets from environment variables or files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.domain.errors import DeliveryFailed
from harness.domain.operations.delivery import AlertMessage
from harness.domain.settings import AlertSettings, AlertSink
from harness.runtime.outbound import webhook


class ConfiguredSinks:
    """Sends alerts to the configured sinks. environ: where URLs and secrets are, read when they
    are needed.
    """

    def __init__(self, settings: AlertSettings, environ: Mapping[str, str]) -> None:
        self._sinks = {sink.name: sink for sink in settings.sinks}
        self._timeout_s = settings.timeout_s
        self._environ = environ

    def names(self) -> Sequence[str]:
        return list(self._sinks)

    def send(self, sink: str, message: AlertMessage) -> None:
        known = self._sinks.get(sink)
        if known is None:
            raise DeliveryFailed(f"there is no sink {sink!r} in the configuration now")
        try:
            self._send(known, message)
        except DeliveryFailed:
            raise
        except Exception as error:  # noqa: BLE001 - a sender of any kind may raise anything
            # Its words may have the URL in them, and the URL has a password.
            raise DeliveryFailed(f"the sender failed: {type(error).__name__}") from None

    def lacks(self, sink: str) -> str:
        """Says which variable of the sink is not set or readable; empty when all are."""
        known = self._sinks[sink]
        try:
            for variable in (known.url_env, known.secret_env):
                if variable:
                    self._secret(variable)
        except DeliveryFailed as error:
            return str(error)
        return ""

    def _send(self, sink: AlertSink, message: AlertMessage) -> None:
        if sink.webhook:
            secret = self._secret(sink.secret_env).encode()
            webhook.post(sink.webhook, secret, message, timeout_s=self._timeout_s)
            return
        from harness.runtime.outbound import apprise_sink  # noqa: PLC0415 - apprise takes its time

        url = sink.url or self._secret(sink.url_env)
        apprise_sink.notify(url, message, timeout_s=self._timeout_s)

    def _secret(self, variable: str) -> str:
        """Raises DeliveryFailed, naming the variable."""
        if value := self._environ.get(variable, ""):
            return value
        file = self._environ.get(f"{variable}_FILE", "")
        if not file:
            raise DeliveryFailed(f"the environment variable {variable} is not set")
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise DeliveryFailed(f"{variable}_FILE cannot be read: {error.strerror}") from None
