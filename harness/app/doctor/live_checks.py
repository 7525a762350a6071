"""Tries a provider's model with the user's own key, below a cap: `swapgate doctor --live`. Each
request goes through a router made for it alone that tries nothing again.
"""

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from harness.app.doctor import tool_checks
from harness.app.doctor.live_scenarios import (
    ANSWER_LIMIT,
    SCENARIOS,
    STRUCTURED,
    UNKNOWN_MODEL,
    UNKNOWN_SUFFIX,
    LiveAnswer,
    LiveFinding,
    LiveOutcome,
    LiveScenario,
    read_answer,
)
from harness.app.doctor.tool_checks import TargetReport, without_secrets
from harness.app.embedded import single_target_router
from harness.app.installation import Installation
from harness.client.in_process import InProcessChannel
from harness.client.stream import Channel
from harness.client.types import Usage
from harness.control.providers import provider_secrets
from harness.domain.errors import CallFailed, InputError, NotFound
from harness.domain.providers import tool_probe
from harness.domain.providers.catalogue import with_catalogue_prices
from harness.domain.providers.credentials import lacks_key
from harness.domain.providers.kinds import PROVIDER_KINDS, AnswerLimit
from harness.domain.providers.tool_probe import ToolFinding, ToolOutcome
from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import Price, Provider, Target
from harness.domain.settings import AnsweredModel

_CHAT: Final = "/v1/chat/completions"
# After one of these nothing else can be seen, and every further call is in vain.
_HOPELESS: Final = frozenset(
    {
        FailureClass.OUR_KEY,
        FailureClass.QUOTA,
        FailureClass.MODEL_UNKNOWN,
        FailureClass.CONNECT,
        FailureClass.RATE_LIMITED,
    }
)
# What providers add to a request by themselves: templates, a system prompt for tools.
_ADDED_INPUT_TOKENS: Final = 1_000
# Ordinary text has more tokens than that: an answer that reports fewer is not believed.
_BYTES_PER_TOKEN: Final = 10
_TOOLS_EXPECTED: Final = "as declared of the model"
# What a model called a tool may be anything.
_QUOTED: Final = re.compile(r"""[: ]*['"]""")


class CapReached(CallFailed):
    """Raised for a call that was not made, with the cap that it could have passed."""


@dataclass
class LiveMeter:
    max_usd: float
    max_tokens: int | None = None  # of input and output together; None for no such cap
    price: Price | None = None  # of the model that is asked now
    spent_usd: float = 0.0
    spent_tokens: int = 0
    calls: int = 0
    limit_kept: bool = True  # no answer was longer than it was allowed to be

    def require(self, most: Usage) -> None:
        """Checks that the call fits with the most that it can take. Raises CapReached."""
        why = ""
        if not self.limit_kept:
            why = "an earlier answer exceeded its token limit, so that no cap holds"
        elif self.price is None and self.max_tokens is None:
            why = "the model's price is unknown: give --max-tokens-in-all"
        elif self.spent_usd + self._cost_usd(most) > self.max_usd:
            why = "would pass the cap of --max-usd"
        elif self.max_tokens is not None and self.spent_tokens + _total(most) > self.max_tokens:
            why = "would pass the cap of --max-tokens-in-all"
        if why:
            raise CapReached(why)

    def settle(self, most: Usage, answer: LiveAnswer) -> None:
        """Charges what the provider reports, but no less than its answer is long; the most
        where it reports nothing, or 0.
        """
        used = answer.usage
        if used is None or used.input_tokens <= 0 or used.output_tokens <= 0:
            used = most
        least = len(answer.text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN
        used = Usage(used.input_tokens, max(used.output_tokens, least))
        self.limit_kept = self.limit_kept and used.output_tokens <= most.output_tokens
        self.spent_usd += self._cost_usd(used)
        self.spent_tokens += _total(used)
        self.calls += 1

    def _cost_usd(self, call: Usage) -> float:
        if self.price is None:
            return 0.0
        return self.price.cost_usd(call.input_tokens, call.output_tokens)


def _total(call: Usage) -> int:
    return call.input_tokens + call.output_tokens


@dataclass(frozen=True, slots=True)
class MeteredAnswer:
    """An answer that came whole, and was charged."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    async def body(self) -> bytes:
        return self.content

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        yield self.content

    async def aclose(self) -> None:
        """Nothing is open any more."""


class MeteredChannel:
    def __init__(self, channel: Channel, meter: LiveMeter) -> None:
        self._channel = channel
        self._meter = meter
        self.heard = LiveAnswer(None)  # of the last call

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> MeteredAnswer:
        """Sends a request that fits the budget, and charges it. Raises CapReached before."""
        # No tokenizer makes two tokens of one byte.
        most = Usage(len(body) + _ADDED_INPUT_TOKENS, ANSWER_LIMIT)
        self._meter.require(most)
        self.heard = LiveAnswer(None)
        try:
            answer = await self._channel.post(path, body, headers)
            try:
                whole = MeteredAnswer(answer.status, answer.headers, await answer.body())
            finally:
                await answer.aclose()
            self.heard = read_answer(whole.status, whole.headers, whole.content)
            return whole
        finally:
            self._meter.settle(most, self.heard)

    async def aclose(self) -> None:
        await self._channel.aclose()


def models_of(installation: Installation, name: str) -> list[tuple[Provider, str]]:
    """Finds PROVIDER/MODEL, or all models of a PROVIDER. Raises NotFound, InputError."""
    start, _, model = name.partition("/")
    ctx = installation.context
    with ctx.store.read() as tx:
        provider = tx.providers.all().get(start)
        targets = tx.routing.targets().values()
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
    """Runs and judges every scenario. timeout_s: for each request, and for the tool loops."""
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
        run = _LiveRun(quiet, provider, model, meter, timeout_s)
        run.ask(model, SCENARIOS)
        run.try_tools()
        run.ask(model + UNKNOWN_SUFFIX, (UNKNOWN_MODEL,))
    findings = [
        # A provider may call itself by the key that it was sent.
        replace(finding, found=without_secrets(finding.found, provider, keys))
        for finding in run.findings
    ]
    failed = any(finding.outcome is LiveOutcome.FAILS for finding in findings)
    return TargetReport(name, not (failed or run.is_capped), findings)


def _quiet(installation: Installation) -> Installation:
    """The installation with a router that calls a provider when it is asked, and then once."""
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
    model: str
    meter: LiveMeter
    timeout_s: float
    findings: list[LiveFinding] = field(default_factory=list)
    is_capped: bool = False
    is_hopeless: bool = False

    @contextmanager
    def _channel(self, model: str) -> Iterator[tuple[MeteredChannel, str]]:
        """A metered channel to a router before this model alone, and its route."""
        target = Target(self.provider.name, model, {AnswerLimit.MAX_TOKENS.value: ANSWER_LIMIT})
        with tempfile.TemporaryDirectory(prefix="swapgate-doctor-") as folder:
            alone = single_target_router(self.installation, target, self.provider, Path(folder))
            inner = InProcessChannel(alone.router, alone.key)
            yield MeteredChannel(inner, self.meter), alone.route

    def ask(self, model: str, scenarios: Sequence[LiveScenario]) -> None:
        """Asks one scenario after the other; none once a call was in vain for all."""
        if self.is_hopeless:
            self.findings += [self._untried(one.name, one.expected) for one in scenarios]
            return
        with self._channel(model) as (channel, route):
            asyncio.run(self._ask_all(channel, route, scenarios))

    async def _ask_all(
        self, channel: MeteredChannel, route: str, scenarios: Sequence[LiveScenario]
    ) -> None:
        try:
            for scenario in scenarios:
                self.findings.append(await self._ask(channel, route, scenario))
        finally:
            await channel.aclose()

    async def _ask(
        self, channel: MeteredChannel, route: str, scenario: LiveScenario
    ) -> LiveFinding:
        if self.is_hopeless:
            return self._untried(scenario.name, scenario.expected)
        if scenario is STRUCTURED and not self.provider.can(self.model).json_schema:
            why = "json_schema: false is declared for the model"
            return self._untried(scenario.name, scenario.expected, why)
        fields = dict(scenario.fields)
        # Without one, the answer's limit is the target's.
        if scenario.limit is not None:
            kind = PROVIDER_KINDS.get(self.provider.kind)
            named = kind.answer_limit if kind is not None else None
            fields[(named or AnswerLimit.MAX_TOKENS).value] = scenario.limit
        asked = [{"role": "user", "content": scenario.question}]
        body = {"model": route, "messages": asked, **fields}
        try:
            async with asyncio.timeout(self.timeout_s):
                await channel.post(_CHAT, json.dumps(body).encode(), {})
            answer = channel.heard
        except CapReached as reached:
            self.is_capped = True
            return self._untried(scenario.name, scenario.expected, str(reached))
        except TimeoutError:
            answer = LiveAnswer(None, FailureClass.TIMEOUT.value)
        except CallFailed:
            answer = LiveAnswer(None, FailureClass.MALFORMED.value)
        self.is_hopeless = scenario is SCENARIOS[0] and answer.failure in _HOPELESS
        return scenario.find(answer, self.model)

    def try_tools(self) -> None:
        """The loops of `doctor --tools`, with as many of their calls as the caps allow."""
        why = ""

        def error_text(error: Exception) -> str:
            """Without the provider's words, which may repeat what it was asked."""
            nonlocal why
            if isinstance(error, CapReached):
                why = why or str(error)
            status = error.status if isinstance(error, CallFailed) else None
            return f"it fails (status {status or 'none'})"

        if self.is_hopeless:
            self.findings.append(self._untried("tools", _TOOLS_EXPECTED))
            return
        with self._channel(self.model) as (channel, route):
            loops = tool_checks.probe_loops(channel, route, self.timeout_s, error_text)
            seen = asyncio.run(loops)
        if why:
            self.is_capped = True
            self.findings.append(self._untried("tools", _TOOLS_EXPECTED, why))
            return
        target = Target(self.provider.name, self.model)
        self.findings += map(_of_tools, tool_probe.tool_findings(self.provider, target, seen))

    def _untried(
        self, name: str, expected: str, why: str = "the plain answer failed"
    ) -> LiveFinding:
        return LiveFinding(name, LiveOutcome.NOT_TRIED, expected, f"not tried: {why}")


def _of_tools(finding: ToolFinding) -> LiveFinding:
    outcome = LiveOutcome.DIFFERS if finding.next_step else LiveOutcome.WORKS
    if finding.failed:
        outcome = LiveOutcome.FAILS
    elif finding.outcome is ToolOutcome.NOT_SEEN:
        outcome = LiveOutcome.NOT_TRIED
    name, found = f"tools: {finding.subject}", _QUOTED.split(finding.found, 1)[0]
    return LiveFinding(name, outcome, _TOOLS_EXPECTED, found, finding.next_step)
