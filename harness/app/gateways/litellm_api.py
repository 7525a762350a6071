"""Calls LiteLLM's admin API: its JSON answers, and the pages of its spend logs."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from harness.frame.errors import UpstreamError
from harness.providers.calls.guarded_http import GuardedHttpClient
from harness.providers.calls.probe import error_message

TIMEOUT_S: Final = 30.0
PAGE_ROWS: Final = 500
_UNREADABLE: Final = (AttributeError, LookupError, TypeError, ValueError)


class SpendPage(NamedTuple):
    """A page of rows. total: the number of all rows; None if LiteLLM does not say."""

    rows: Sequence[Mapping[str, Any]]
    total: int | None


class LiteLLMApi:
    """Calls the API with a key, which no message contains. allowed: as for
    GuardedHttpClient.
    """

    def __init__(self, url: str, key: str, allowed: Collection[str] = ()) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._client = GuardedHttpClient(allowed)

    def read_spend_logs(
        self, since: datetime, *, newest_first: bool = False
    ) -> Iterator[SpendPage]:
        """Yields the pages of the requests that began since that time. Raises UpstreamError."""
        parameters = {
            "start_date": f"{since.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            "end_date": "2999-12-31 00:00:00",
            "page_size": PAGE_ROWS,
            "sort_by": "startTime",
            "sort_order": "desc" if newest_first else "asc",
            "exclude_internal_health_checks": "true",
        }
        page = 1
        pages = 1
        while page <= pages:
            answer = self.call(f"/spend/logs/v2?{urlencode({**parameters, 'page': page})}")
            try:
                total = answer.get("total")
                yield SpendPage([*answer["data"]], total if isinstance(total, int) else None)
                page = page + 1
                pages = int(answer["total_pages"])
            except _UNREADABLE as error:
                raise UpstreamError(f"LiteLLM's logs are unreadable: {error!r}") from None

    def call(
        self,
        path: str,
        body: object = None,
        *,
        method: str | None = None,
    ) -> Any:
        """Calls the API and returns the JSON of its answer. Raises UpstreamError, without the
        key.
        """
        headers = {
            "authorization": f"Bearer {self._key}",
            "content-type": "application/json",
        }
        payload = None if body is None else json.dumps(body).encode()
        description = f"LiteLLM at {self._url}"
        try:
            with self._client.send(
                f"{self._url}{path}",
                headers,
                payload,
                timeout_s=TIMEOUT_S,
                method=method,
            ) as answer:
                text = answer.read()
                status = answer.status
        except (OSError, HTTPException, ValueError) as error:
            raise UpstreamError(f"{description} does not answer: {error}") from None
        with suppress(ValueError, RecursionError):
            if status == HTTPStatus.OK:
                return json.loads(text)
        message = error_message(text, [self._key])
        raise UpstreamError(
            f"{description} answers {path.partition('?')[0]} with {status}: {message}"
        )
