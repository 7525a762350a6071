"""Tries a provider's model with the user's key, below a cap: `swapproof doctor --live`.

The requests pass a separate router without fallbacks and retries, so that each finding is about
one call. `live_scenarios` has the requests and judges the answers.
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
from harness.providers.records import Providers, Targets
from harness.providers.registry import provider_secrets
from harness.providers.registry.targets import fill_prices
from harness.providers.target import Price, Provider, Target
from harness.providers.target_price import describe_missing
from harness.routing.settings import AnsweredModel

_UNKNOWN_SUFFIX: Final = "-swapproof-no-such-model"
# The tokens that providers may add to a request: templates, a system prompt.
_ADDED_INPUT_TOKENS: Final = 1_000
# Ordinary text has fewer bytes per token. If an answer reports fewer tokens, doctor counts a
# token for each ten bytes.
_BYTES_PER_TOKEN: Final = 10
# After one of these failures, each further call would fail, too.
_FINAL_FAILURES: Final = frozenset(
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

    max_usd: for all models together. limit_kept: False once a provider has ignored a token
    limit. After that, no estimate is reliable, so doctor sends no further call.
    """

    max_usd: float
    price: Price | None = None  # the current model's price
    model: str = ""  # its name, `provider/model`
    spent_usd: float = 0.0
    calls: int = 0
    limit_kept: bool = True  # whether all answers kept their token limit

    def find_obstacle(self, max_usage: Usage) -> str:
        """Returns why doctor must not send a call; empty if it may.

        Args:
            max_usage: the greatest possible usage of the call.
        """
        if not self.limit_kept:
            return "an earlier answer exceeded its token limit, so no cap is reliable"
        if self.price is None:
            return describe_missing(self.model)
        exceeds_cap = self.spent_usd + self._price_usd(max_usage) > self.max_usd
        return "would exceed the cap of --max-usd" if exceeds_cap else ""

    def settle(self, max_usage: Usage, answer: LiveAnswer) -> None:
        """Adds a call's usage: the reported usage, or the estimate by the answer's length if
        that is larger. If the provider reports no usage, or 0, adds `max_usage`.
        """
        usage = answer.usage
        if usage is None or usage.input_tokens <= 0 or usage.output_tokens <= 0:
            usage = max_usage
        text = answer.response.text if answer.response else ""
        least_tokens = len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN
        usage = Usage(usage.input_tokens, max(usage.output_tokens, least_tokens))
        self.limit_kept = self.limit_kept and usage.output_tokens <= max_usage.output_tokens
        self.spent_usd += self._price_usd(usage)
        self.calls += 1

    def _price_usd(self, call: Usage) -> float:
        if self.price is None:
            return 0.0
        return self.price.cost_usd(call.input_tokens, call.output_tokens)


def find_models(installation: Installation, name: str) -> list[tuple[Provider, str]]:
    """Finds PROVIDER/MODEL, or all models of a PROVIDER. Raises NotFound, InputError."""
    provider_name, _, model = name.partition("/")
    ctx = installation.context
    with ctx.store.read() as tx:
        provider = Providers(tx).all().get(provider_name)
        targets = Targets(tx).all().values()
    if provider is None:
        raise NotFound(f"there is no provider {provider_name!r}: see `swapproof provider list`")
    kind = PROVIDER_KINDS.get(provider.kind)
    if kind is not None and Endpoint.CHAT not in kind.serves:
        raise InputError(f"a provider of the kind {provider.kind} has no chat endpoint to try")
    registered = sorted(
        {target.model for target in targets if target.provider == provider_name}
    )
    models = [model] if model else registered
    if not models:
        raise InputError(
            f"provider {provider_name!r} has no registered model: name one, "
            f"{provider_name}/MODEL"
        )
    with ctx.store.read() as tx:
        with_prices = fill_prices(ctx, tx, provider, models)
    return [(with_prices, model_name) for model_name in models]


def probe_model(
    installation: Installation,
    provider: Provider,
    model: str,
    meter: LiveMeter,
    timeout_s: float,
) -> TargetReport[LiveFinding]:
    """Tests a model by all scenarios.

    Args:
        timeout_s: the limit for each request.
    """
    keys = provider_secrets.keys_of_provider(installation.context, provider)
    name = f"{provider.name}/{model}"
    if lacks_key(provider, keys):
        step = f"`swapproof provider key set {provider.name}`"
        expected = SCENARIOS[0].expected
        no_key_finding = LiveFinding("key", LiveOutcome.FAILS, expected, "it has no key", step)
        return TargetReport(name, ok=False, findings=[no_key_finding])
    meter.price = provider.prices.get(model)
    meter.model = name
    single_try = _disable_retries(installation)
    with closing(single_try.store):
        run = _LiveRun(single_try, provider, meter, timeout_s)
        run.ask(model, SCENARIOS)
        run.ask(model + _UNKNOWN_SUFFIX, (UNKNOWN_MODEL,))
    findings = [
        # A provider's text may contain the key that it received.
        replace(finding, found=without_secrets(finding.found, provider, keys))
        for finding in run.findings
    ]
    failed = any(finding.outcome is LiveOutcome.FAILS for finding in findings)
    return TargetReport(name, not (failed or run.is_capped), findings)


def _disable_retries(installation: Installation) -> Installation:
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
    is_final: bool = False

    def ask(self, model: str, scenarios: Sequence[LiveScenario]) -> None:
        """Runs the scenarios in order, until a failure that concerns all of them."""
        if self.is_final:
            self.findings += [scenario.skip() for scenario in scenarios]
            return
        target = Target(
            self.provider.name,
            model,
            {AnswerLimit.MAX_TOKENS.value: ANSWER_LIMIT},
        )
        with tempfile.TemporaryDirectory(prefix="swapproof-doctor-") as folder:
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
        if self.is_final:
            return scenario.skip()
        if scenario is STRUCTURED and not self.provider.abilities(model).json_schema:
            return scenario.skip("json_schema: false is declared for the model")
        fields = dict(scenario.fields)
        # Without a limit, the target's limit applies.
        if scenario.limit is not None:
            kind = PROVIDER_KINDS.get(self.provider.kind)
            limit_field = kind.answer_limit if kind is not None else None
            fields[(limit_field or AnswerLimit.MAX_TOKENS).value] = scenario.limit
        messages = (Message.user(scenario.question),)
        request = CompletionRequest(messages=messages, route=ROUTE, extra=fields)
        # A tokenizer makes at most one token per byte.
        size = len(json.dumps(chat_body(request, stream=scenario.streamed)))
        max_usage = Usage(size + _ADDED_INPUT_TOKENS, ANSWER_LIMIT)
        if obstacle := self.meter.find_obstacle(max_usage):
            self.is_capped = True
            return scenario.skip(obstacle)
        answer = LiveAnswer(failure=FailureClass.TIMEOUT.value)
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await _request_answer(client, request, streamed=scenario.streamed)
        except TimeoutError:
            pass
        except CallFailed as error:
            answer = _describe_failure(error)
        finally:
            self.meter.settle(max_usage, answer)
        self.is_final = scenario is SCENARIOS[0] and answer.failure in _FINAL_FAILURES
        return scenario.find(answer, model)


async def _request_answer(
    client: AsyncModelClient,
    request: CompletionRequest,
    *,
    streamed: bool,
) -> LiveAnswer:
    """Sends one request. Raises CallFailed."""
    if not streamed:
        return LiveAnswer(await client.complete(request))
    async with client.stream(request) as stream:
        chunks = [chunk async for chunk in stream]
        return LiveAnswer(stream.response(), chunks)


def _describe_failure(error: CallFailed) -> LiveAnswer:
    """Describes a failed call by the failure class of its last attempt, as the router
    sees it.
    """
    attempts = error.details.get("attempts")
    last = attempts[-1] if isinstance(attempts, list) and attempts else None
    if isinstance(last, dict) and last.get("failure") in set(FailureClass):
        status = last.get("status")
        known_status = status if isinstance(status, int) else None
        return LiveAnswer(failure=str(last["failure"]), status=known_status)
    if error.code in set(FailureClass):
        return LiveAnswer(failure=error.code)
    if isinstance(error, AnswerUnreadable) or error.status is None:
        return LiveAnswer(failure=FailureClass.MALFORMED.value)
    # For a client's mistake, the router returns the provider's error and status.
    return LiveAnswer(failure=FailureClass.BAD_REQUEST.value, status=error.status)
