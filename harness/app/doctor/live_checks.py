"""Tries a provider's model with the user's own key, below a cap: `swapgate doctor --live`.

The requests pass a router of their own, with no fallbacks and no retries, so that each finding
is about one call. `live_scenarios` has the requests and judges the answers.
"""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from harness.app.doctor.live_scenarios import (
    ANSWER_LIMIT,
    SCENARIOS,
    STRUCTURED,
    UNKNOWN_MODEL,
    LiveAnswer,
    LiveFinding,
    LiveOutcome,
    LiveScenario,
)
from harness.app.doctor.tool_checks import (
    ROUTE,
    TargetReport,
    single_target_router,
    without_secrets,
)
from harness.app.installation import Installation
from harness.client.async_client import AsyncModelClient
from harness.client.chat_request import chat_body
from harness.client.in_process import InProcessChannel
from harness.client.types import CompletionRequest, Message, Usage
from harness.frame.errors import (
    AnswerUnreadable,
    CallFailed,
    InputError,
    NotFound,
)
from harness.frame.failures import FailureClass
from harness.providers.credential import lacks_key
from harness.providers.kinds import PROVIDER_KINDS, AnswerLimit
from harness.providers.models.capabilities import Endpoint
from harness.providers.models.catalogue import with_catalogue_prices
from harness.providers.records import Providers, Targets
from harness.providers.registry import provider_secrets
from harness.providers.target import Price, Provider, Target
from harness.routing.settings import AnsweredModel

_UNKNOWN_SUFFIX: Final = "-swapgate-no-such-model"
# The tokens that providers may add to a request: templates, a system prompt.
_ADDED_INPUT_TOKENS: Final = 1_000
# Ordinary text has more tokens per byte; doctor does not trust an answer that reports fewer.
_BYTES_PER_TOKEN: Final = 10
# After one of these failures, each further call would fail as well.
_HOPELESS: Final = frozenset(
    {
        FailureClass.OUR_KEY,
        FailureClass.QUOTA,
        FailureClass.MODEL_UNKNOWN,
        FailureClass.CONNECT,
        FailureClass.RATE_LIMITED,
    }
)


@dataclass
class LiveMeter:
    """Counts the cost of the calls, and refuses a call that could exceed the cap.

    max_usd: for all models together. limit_kept: once a provider ignores a token limit, no
    estimate holds, so no further call is made.
    """

    max_usd: float
    price: Price | None = None  # the current model's price
    spent_usd: float = 0.0
    calls: int = 0
    limit_kept: bool = True  # whether all answers kept their token limit

    def obstacle(self, most: Usage) -> str:
        """Returns why doctor must not send a call of this maximum usage; empty if it may."""
        if not self.limit_kept:
            return "an earlier answer exceeded its token limit, so no cap is reliable"
        if self.price is None:
            return "the model's price is unknown: give it one under its provider's `prices`"
        over = self.spent_usd + self._cost_usd(most) > self.max_usd
        return "would exceed the cap of --max-usd" if over else ""

    def settle(self, most: Usage, answer: LiveAnswer) -> None:
        """Adds the reported usage, or an estimate from the answer's length if that is larger.
        Adds the maximum if the provider reports no usage, or 0.
        """
        used = answer.usage
        if used is None or used.input_tokens <= 0 or used.output_tokens <= 0:
            used = most
        text = answer.response.text if answer.response else ""
        least = len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN
        used = Usage(used.input_tokens, max(used.output_tokens, least))
        self.limit_kept = self.limit_kept and used.output_tokens <= most.output_tokens
        self.spent_usd += self._cost_usd(used)
        self.calls += 1

    def _cost_usd(self, call: Usage) -> float:
        if self.price is None:
            return 0.0
        return self.price.cost_usd(call.input_tokens, call.output_tokens)


def models_of(installation: Installation, name: str) -> list[tuple[Provider, str]]:
    """Finds PROVIDER/MODEL, or all models of a PROVIDER. Raises NotFound, InputError."""
    start, _, model = name.partition("/")
    ctx = installation.context
    with ctx.store.read() as tx:
        provider = Providers(tx).all().get(start)
        targets = Targets(tx).all().values()
    if provider is None:
        raise NotFound(f"there is no provider {start!r}: see `swapgate provider list`")
    kind = PROVIDER_KINDS.get(provider.kind)
    if kind is not None and Endpoint.CHAT not in kind.serves:
        raise InputError(f"a provider of the kind {provider.kind} has no chat endpoint to try")
    registered = sorted({target.model for target in targets if target.provider == start})
    models = [model] if model else registered
    if not models:
        raise InputError(f"provider {start!r} has no registered model: name one, {start}/MODEL")
    priced = with_catalogue_prices(provider, ctx.catalogue, models)
    return [(priced, model_name) for model_name in models]


def report(
    installation: Installation,
    provider: Provider,
    model: str,
    meter: LiveMeter,
    timeout_s: float,
) -> TargetReport[LiveFinding]:
    """Runs and judges all scenarios. timeout_s: the limit for each request."""
    keys = provider_secrets.keys_of_provider(installation.context, provider)
    name = f"{provider.name}/{model}"
    if lacks_key(provider, keys):
        step = f"`swapgate provider key set {provider.name}`"
        expected = SCENARIOS[0].expected
        lacking = LiveFinding("key", LiveOutcome.FAILS, expected, "it has no key", step)
        return TargetReport(name, ok=False, findings=[lacking])
    meter.price = provider.prices.get(model)
    quiet = _quiet(installation)
    with closing(quiet.store):
        run = _LiveRun(quiet, provider, meter, timeout_s)
        run.ask(model, SCENARIOS)
        run.ask(model + _UNKNOWN_SUFFIX, (UNKNOWN_MODEL,))
    findings = [
        # A provider's text may contain the key that it received.
        replace(finding, found=without_secrets(finding.found, provider, keys))
        for finding in run.findings
    ]
    failed = any(finding.outcome is LiveOutcome.FAILS for finding in findings)
    return TargetReport(name, not (failed or run.is_capped), findings)


def _quiet(installation: Installation) -> Installation:
    """Builds a router that calls a provider once for each request."""
    settings = installation.settings
    router = replace(
        settings.router,
        retry=replace(settings.router.retry, tries_per_target=1, attempts=1),
        health_check_interval_s=0.0,
        response_model=AnsweredModel.PROVIDER,
    )
    return replace(installation, settings=replace(settings, router=router))


@dataclass
class _LiveRun:
    installation: Installation
    provider: Provider
    meter: LiveMeter
    timeout_s: float
    findings: list[LiveFinding] = field(default_factory=list)
    is_capped: bool = False
    is_hopeless: bool = False

    def ask(self, model: str, scenarios: Sequence[LiveScenario]) -> None:
        """Runs the scenarios in order, until a failure that concerns all of them."""
        if self.is_hopeless:
            self.findings += [scenario.untried() for scenario in scenarios]
            return
        target = Target(
            self.provider.name,
            model,
            {AnswerLimit.MAX_TOKENS.value: ANSWER_LIMIT},
        )
        with tempfile.TemporaryDirectory(prefix="swapgate-doctor-") as folder:
            router, key = single_target_router(
                self.installation,
                target,
                self.provider,
                Path(folder),
            )
            channel = InProcessChannel(router, key)
            client = AsyncModelClient(channel, self.installation.clock, repeats=False)
            asyncio.run(self._ask_all(client, model, scenarios))

    async def _ask_all(
        self,
        client: AsyncModelClient,
        model: str,
        scenarios: Sequence[LiveScenario],
    ) -> None:
        async with client:
            for scenario in scenarios:
                self.findings.append(await self._ask(client, model, scenario))

    async def _ask(
        self,
        client: AsyncModelClient,
        model: str,
        scenario: LiveScenario,
    ) -> LiveFinding:
        if self.is_hopeless:
            return scenario.untried()
        if scenario is STRUCTURED and not self.provider.abilities(model).json_schema:
            return scenario.untried("json_schema: false is declared for the model")
        fields = dict(scenario.fields)
        # Without a limit, the target's limit applies.
        if scenario.limit is not None:
            kind = PROVIDER_KINDS.get(self.provider.kind)
            named = kind.answer_limit if kind is not None else None
            fields[(named or AnswerLimit.MAX_TOKENS).value] = scenario.limit
        asked = (Message.user(scenario.question),)
        request = CompletionRequest(messages=asked, route=ROUTE, extra=fields)
        # A tokenizer makes at most one token per byte.
        size = len(json.dumps(chat_body(request, stream=scenario.streamed)))
        most = Usage(size + _ADDED_INPUT_TOKENS, ANSWER_LIMIT)
        if why := self.meter.obstacle(most):
            self.is_capped = True
            return scenario.untried(why)
        answer = LiveAnswer(failure=FailureClass.TIMEOUT.value)
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await _read(client, request, streamed=scenario.streamed)
        except TimeoutError:
            pass
        except CallFailed as error:
            answer = _failed(error)
        finally:
            self.meter.settle(most, answer)
        self.is_hopeless = scenario is SCENARIOS[0] and answer.failure in _HOPELESS
        return scenario.find(answer, model)


async def _read(
    client: AsyncModelClient,
    request: CompletionRequest,
    *,
    streamed: bool,
) -> LiveAnswer:
    """Asks once. Raises CallFailed."""
    if not streamed:
        return LiveAnswer(await client.complete(request))
    async with client.stream(request) as stream:
        chunks = [chunk async for chunk in stream]
        return LiveAnswer(stream.response(), chunks)


def _failed(error: CallFailed) -> LiveAnswer:
    """Describes a failed call by the failure class of its last attempt, as the router
    sees it.
    """
    attempts = error.details.get("attempts")
    last = attempts[-1] if isinstance(attempts, list) and attempts else None
    if isinstance(last, dict) and last.get("failure") in set(FailureClass):
        status = last.get("status")
        known = status if isinstance(status, int) else None
        return LiveAnswer(failure=str(last["failure"]), status=known)
    if error.code in set(FailureClass):
        return LiveAnswer(failure=error.code)
    if isinstance(error, AnswerUnreadable) or error.status is None:
        return LiveAnswer(failure=FailureClass.MALFORMED.value)
    # For a client's mistake, the router returns the provider's error and status.
    return LiveAnswer(failure=FailureClass.BAD_REQUEST.value, status=error.status)
