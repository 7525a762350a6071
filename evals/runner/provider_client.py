"""Calls a provider for evals: waits for the rate gate, retries, and obeys `retry-after`.

Error texts contain neither the prompt nor the key.

Three outcomes are kept apart, because they mean different things for a score: an answer, an
item that the provider refuses (`ItemRefused`), and a provider that is unavailable (`away`).
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Collection, Mapping, MutableMapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    nullcontext,
)
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from evals.runner.chat_completions import (
    ChatReply,
    MalformedReply,
    parse_reply,
)
from evals.runner.rate_gate import RateGate, Turn
from harness.evals.ports import CallSpending
from harness.frame.errors import (
    InputError,
    NoAnswer,
    SpendingPaused,
    StoreUnavailable,
    UpstreamError,
)
from harness.frame.failures import FailureClass
from harness.frame.formatting import format_quantity, format_span
from harness.providers.answer_signs import read_origin
from harness.providers.api_base_rules import check_api_base
from harness.providers.calls.guarded_http import check_request_headers
from harness.providers.credential import hide_secret
from harness.providers.kinds import rename_answer_limit
from harness.providers.ports import Posted, ProviderCallsFactory
from harness.providers.target import Price, Provider
from harness.routing.reliability.rate_headers import used_up_for_s
from harness.routing.reliability.retry import retry_after_s

Waiting = Callable[[], AbstractAsyncContextManager[None]]
RETRIES: Final = 3  # statistics.md §1.1
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 20.0
# The client does not wait longer, even if the provider asks for it.
MAX_PROVIDER_PAUSE_S: Final = 600.0
LONGEST_USED_UP_S: Final = 60.0  # longest pause if the rate limit is used up
RETRYABLE: Final = frozenset({408, 409, 425, 429})
# The client asks this if an item gets no answer and no other item got one meanwhile. An answer
# shows that the provider is available.
SHORT_QUESTION: Final = "Say OK."
ITEM_FIELDS: Final = frozenset({"messages", "tools", "tool_choice", "response_format"})
SHARED_TEXT: Final = 16  # characters of the request that an error text must not repeat
SHARED_SECRET: Final = 8  # the same for the key and the provider's extra headers
# A short outage of the database does not end a run.
SPENDING_ATTEMPTS: Final = 30
SPENDING_PAUSE_S: Final = 1.0


class ModelSpending:
    """Adds up the cost of one model's calls. price: None if it is unknown."""

    def __init__(
        self,
        spending: CallSpending,
        price: Price | None,
        model: str,
    ) -> None:
        self._spending = spending
        self._price = price
        self._model = model

    async def require_money(self) -> None:
        """Waits until a call may be made. Raises SpendingPaused at the monthly cap, or if the
        database is unavailable for too long.
        """
        unpriced = "" if self._price is not None else self._model
        for _ in range(SPENDING_ATTEMPTS):
            try:
                return await asyncio.to_thread(self._spending.require_money, unpriced)
            except StoreUnavailable:
                await asyncio.sleep(SPENDING_PAUSE_S)
        raise SpendingPaused(
            "the database is unavailable, so the rest of the monthly cap is unknown"
        )

    def pay(self, reply: ChatReply) -> None:
        """Adds a reply's cost. A call without a reply is free."""
        self._spending.pay(reply.cost_usd(self._price))


class ProviderFailed(UpstreamError):
    """The provider gave no answer. The text contains neither prompt nor key."""


class ItemRefused(ProviderFailed):
    """The provider refuses the request's content or length, which counts as its answer."""

    def __init__(self, text: str, failure: FailureClass) -> None:
        super().__init__(text)
        self.failure = failure


ITEM_FAILURES: Final = (
    FailureClass.CONTENT_POLICY,
    FailureClass.CONTEXT_WINDOW,
)
# A call without any answer also counts as overload, because the causes look alike.
OVERLOADS: Final = (
    FailureClass.RATE_LIMITED,
    FailureClass.OVERLOADED,
    FailureClass.TIMEOUT,
)


class _AttemptFailed(Exception):
    """One attempt failed. pause_s: the pause that the provider asked for, if any."""

    def __init__(
        self,
        text: str,
        *,
        retry: bool,
        pause_s: float | None = None,
        failure: FailureClass | None = None,
    ) -> None:
        super().__init__(text)
        self.retry = retry
        self.pause_s = pause_s
        self.failure = failure
        self.overloaded = retry and (failure is None or failure in OVERLOADS)


class EvalProviderClient:
    """Asks one provider for chat completions. Create and close it in one event loop.

    calls: makes the client that sends requests.
    pace: the rate gate; the client closes it.
    waiting: a context that the client enters while a call waits for the gate.
    allowed: exceptions for addresses, as `api_base_rules` reads them.
    spending: adds up the costs; None without a cap.
    away: gets an entry for an unavailable provider, by the failure's text. Its value is the
      provider's name and the time of its first failure since its last answer, by
      `time.perf_counter`. A provider is unavailable if it answered no other request
      meanwhile, nor a short question afterwards.

    Raises ConfigError if a package that the provider's kind needs is missing.
    """

    def __init__(  # noqa: PLR0913 - by name, and most have a default
        self,
        provider: Provider,
        api_key: str | None,
        *,
        calls: ProviderCallsFactory,
        connections: int,
        timeout_s: float = 120.0,
        first_pause_s: float = FIRST_PAUSE_S,
        pace: RateGate | None = None,
        waiting: Waiting = nullcontext,
        allowed: Collection[str] = (),
        spending: ModelSpending | None = None,
        away: MutableMapping[str, tuple[str, float]] | None = None,
    ) -> None:
        self._provider = provider
        self._key = api_key or ""
        self._secrets = (self._key, *provider.extra_headers.values())
        self._calls = calls(
            provider,
            api_key,
            connections=connections,
            timeout_s=timeout_s,
            allowed=allowed,
        )
        self._first_pause_s = first_pause_s
        self._pace = pace
        self._waiting = waiting
        self._spending = spending
        self._allowed = allowed
        self._away = {} if away is None else away
        self._answers = 0  # number of the provider's answers
        self._counts_tokens = False  # an answer reported tokens
        self._first_failed: tuple[int, float] = (-1, 0.0)  # answers before it, and its time
        # Randomness only spreads the retries over time; no result depends on it.
        self._jitter = random.Random()  # noqa: S311 - not for security

    async def ask(self, body: Mapping[str, Any]) -> tuple[ChatReply, float]:
        """Returns a chat completion and the seconds of the last attempt.

        Raises ProviderFailed after the last retry, or if a retry cannot help.
        """
        body = rename_answer_limit(body, self._provider.kind)
        # A lone surrogate needs JSON's escape, because UTF-8 cannot encode it.
        request = json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace")
        attempt = 0
        answers = self._answers
        while True:
            try:
                return await self._attempt(request, body)
            except _AttemptFailed as error:
                last_error = error
            if self._first_failed[0] != self._answers:
                self._first_failed = self._answers, time.perf_counter()
            if last_error.failure in ITEM_FAILURES:
                self._answers += 1
                raise ItemRefused(str(last_error), last_error.failure)
            if not last_error.retry:
                raise ProviderFailed(str(last_error))
            asked_s = last_error.pause_s or 0.0
            if asked_s > MAX_PROVIDER_PAUSE_S or attempt == RETRIES:
                pause = f"it asks for a pause of {format_span(asked_s)}"
                attempts = format_quantity(attempt + 1, "attempt")
                text = f"{last_error} ({pause if asked_s > MAX_PROVIDER_PAUSE_S else attempts})"
                has_answered = self._answers != answers
                if not has_answered and (
                    asked_s or not await self._answers_short_question(body)
                ):
                    self._away[text] = (
                        self._provider.name,
                        self._first_failed[1],
                    )
                raise ProviderFailed(text)
            answers = self._answers  # earlier answers do not prove that it is available now
            if asked_s and self._pace is not None:
                self._pace.hold(asked_s)
            await asyncio.sleep(max(self._pause_s(attempt), asked_s))
            attempt += 1

    async def _attempt(
        self, request: bytes, body: Mapping[str, Any]
    ) -> tuple[ChatReply, float]:
        """Makes one attempt. Raises _AttemptFailed, SpendingPaused at the monthly cap."""
        async with AsyncExitStack() as stack:
            turn: Turn | None = None
            if self._pace is not None:
                async with self._waiting():
                    try:
                        admission = self._pace.acquire(len(request))
                        turn = await stack.enter_async_context(admission)
                    except OSError as error:
                        reason = error.strerror or error
                        text = f"Swapproof cannot keep the provider's limits: {reason}"
                        raise _AttemptFailed(text, retry=True) from None
            if self._spending is not None:
                await self._spending.require_money()
            started = time.perf_counter()
            try:
                response = await self._post(request, body)
            except _AttemptFailed as error:
                if error.overloaded and turn is not None:
                    turn.overloaded()
                raise
            seconds = time.perf_counter() - started
            try:
                reply = self._read_reply(response)
            except MalformedReply as error:
                raise _AttemptFailed(str(error), retry=True) from None
            self._answers += 1
            if turn is not None:
                turn.answered(reply.tokens)
            if self._spending is not None:
                self._spending.pay(reply)
            return reply, seconds

    def _read_reply(self, posted: Posted) -> ChatReply:
        """Reads a reply. Raises MalformedReply.

        Also raises it for a text with a usage of 0 tokens, if an earlier answer reported
        tokens. Some gateways write errors in this way.
        """
        headers = (
            (
                name.encode("latin-1", "replace"),
                value.encode("utf-8", "surrogateescape"),
            )
            for name, value in posted.headers.items()
        )
        reply = parse_reply(posted.body, read_origin(headers))
        if reply.no_tokens and reply.text and self._counts_tokens:
            raise MalformedReply(
                "the answer reports 0 tokens for its text, unlike earlier answers"
            )
        self._counts_tokens = self._counts_tokens or reply.tokens > 0
        return reply

    async def _answers_short_question(self, body: Mapping[str, Any]) -> bool:
        """Returns whether the provider answers a short question; then the item is the cause."""
        short = {key: value for key, value in body.items() if key not in ITEM_FIELDS}
        short["messages"] = [{"role": "user", "content": SHORT_QUESTION}]
        try:
            await self._attempt(json.dumps(short).encode(), short)
        except _AttemptFailed as error:
            return not error.retry
        return True

    async def close(self) -> None:
        if self._pace is not None:
            self._pace.close()
        await self._calls.close()

    def _pause_s(self, attempt: int) -> float:
        """Returns the pause before the next attempt: four times the last one, with jitter, at
        most `LONGEST_PAUSE_S`.
        """
        pause = self._first_pause_s * float(4**attempt) * self._jitter.uniform(0.75, 1.25)
        return min(LONGEST_PAUSE_S, pause)

    async def _post(self, request: bytes, body: Mapping[str, Any]) -> Posted:
        """Sends `request`, the JSON of `body`. Raises _AttemptFailed."""
        try:
            check_api_base(self._provider.api_base, self._allowed)
            check_request_headers(self._provider, self._key)
            posted = await self._calls.post("/chat/completions", request)
        except InputError as error:
            raise _AttemptFailed(str(error), retry=False) from None
        except NoAnswer as error:
            raise _AttemptFailed(str(error), retry=error.again) from None
        used_up_s = used_up_for_s(posted.headers, _read_time(posted))
        if used_up_s and self._pace is not None:
            self._pace.hold(min(LONGEST_USED_UP_S, used_up_s))
        if self._pace is not None:
            refused = posted.failure is FailureClass.RATE_LIMITED
            self._pace.note_headers(posted.headers, refused=refused)
        if posted.status == 200:
            return posted
        retry = posted.status >= 500 or posted.status in RETRYABLE
        text = self._error_text(posted.body, body)
        raise _AttemptFailed(
            f"HTTP {posted.status}{text}",
            retry=retry,
            pause_s=retry_after_s(posted.headers, _read_time(posted)),
            failure=posted.failure,
        )

    def _error_text(self, raw: bytes, body: Mapping[str, Any]) -> str:
        """Returns the provider's own words for an error; a fixed text if they repeat the
        request or a secret; empty if they cannot be read.
        """
        try:
            error = json.loads(raw)["error"]
            words = str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, LookupError, TypeError, RecursionError):
            return ""
        words = _flatten_spaces(words)[:300]
        prompt = "\n".join(
            _flatten_spaces(str(message["content"])) for message in body["messages"]
        )
        if _have_common_text(words, prompt, SHARED_TEXT) or any(
            _have_common_text(words, secret, SHARED_SECRET) or _contains_secret(words, secret)
            for secret in self._secrets
        ):
            return " (its message repeats the request, so Swapproof does not show it)"
        return f": {words}"


def _flatten_spaces(text: str) -> str:
    return " ".join(text.split())


def _have_common_text(
    text: str,
    source: str,
    length: int,
) -> bool:
    """Returns whether a text contains `length` characters in a row from the source, in any
    case.
    """
    text = text.casefold()
    source = source.casefold()
    return any(
        text[start : start + length] in source for start in range(len(text) - length + 1)
    )


def _contains_secret(words: str, secret: str) -> bool:
    """Returns whether a text contains a secret in another spelling, such as an encoded one."""
    text = words.encode("utf-8", "surrogatepass")
    return hide_secret(text, secret) != text


def _read_time(answer: Posted) -> datetime:
    """Returns the answer's `date`; else the latest time, so that reset times are past."""
    try:
        return parsedate_to_datetime(answer.headers["date"]).astimezone(UTC)
    except (LookupError, ValueError, OverflowError):
        return datetime.max.replace(tzinfo=UTC)
