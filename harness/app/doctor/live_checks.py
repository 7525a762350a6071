"""Tries a provider's model with the user's own key, below a cap: `swapgate doctor --live`.

Each request takes the router's own path, through a router made for it alone that tries nothing
again. `models_of` finds what a name means, `report` runs and judges.
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
from harness.app.doctor.tool_checks import TargetReport, without_secrets
from harness.app.embedded import single_target_router
from harness.app.installation import Installation
from harness.client.in_process import InProcessChannel
from harness.client.stream import Channel
from harness.control.providers import provider_secrets
from harness.domain.errors import CallFailed, InputError, NotFound
from harness.domain.providers import live_checks, tool_probe
from harness.domain.providers.catalogue import with_catalogue_prices
from harness.domain.providers.credentials import lacks_key
from harness.domain.providers.kinds import PROVIDER_KINDS, AnswerLimit
from harness.domain.providers.live_answer import (
    LiveAnswer,
    LiveBudget,
    most_tokens,
    read_events,
    read_whole,
    settled_tokens,
)
from harness.domain.providers.live_checks import LiveFinding, LiveOutcome, LiveScenario
from harness.domain.providers.tool_probe import ToolFinding, ToolOutcome
from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import Price, Provider, Target
from harness.domain.settings import AnsweredModel
from harness.domain.sse import EventPayloads, EventTooLarge

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
_OF_THE_MODEL: Final = tuple(name for name in LiveScenario if name is not LiveScenario.MODEL)
_QUESTIONS: Final = {
    LiveScenario.LENGTH: live_checks.LONG_QUESTION,
    LiveScenario.STRUCTURED: live_checks.CITY_QUESTION,
}
_CITY: Final = {"name": "city", "strict": True, "schema": live_checks.CITY_SCHEMA}
# What a scenario adds to its question.
_FIELDS: Final[Mapping[LiveScenario, Mapping[str, object]]] = {
    LiveScenario.STREAM: {"stream": True, "stream_options": {"include_usage": True}},
    LiveScenario.STRUCTURED: {"response_format": {"type": "json_schema", "json_schema": _CITY}},
    LiveScenario.PARAMETER: {"temperature": live_checks.WRONG_TEMPERATURE},
}
_TOOLS: Final = "tools"
_TOOLS_EXPECTED: Final = "as declared of the model"
# What a model called a tool may be anything.
_QUOTED: Final = re.compile(r"""[: ]*['"]""")


class CapReached(CallFailed):
    """Raised for a call that was not made, with the cap that it could have passed."""


@dataclass
class LiveMeter:
    """Holds the budget of a run while it lasts."""

    budget: LiveBudget
    price: Price | None = None  # of the model that is asked now
    output_limit: int = 0  # tokens of one answer, at most


@dataclass(frozen=True, slots=True)
class MeteredAnswer:
    """An answer that came whole, and was charged."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    def read(self) -> LiveAnswer:
        """What a judgement needs of it. Raises CallFailed for a stream that cannot be read."""
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            attempts = self.headers.get("x-swapgate-attempts", "")
            return read_whole(self.status, attempts, self.content)
        events = EventPayloads()
        try:
            return read_events([*events.read(self.content), *events.rest()])
        except EventTooLarge as why:
            raise CallFailed(f"the stream cannot be read: {why}") from None

    async def body(self) -> bytes:
        return self.content

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        yield self.content

    async def aclose(self) -> None:
        """Nothing is open any more."""


class MeteredChannel:
    """A channel whose calls are metered."""

    def __init__(self, channel: Channel, meter: LiveMeter) -> None:
        self._channel = channel
        self._meter = meter

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> MeteredAnswer:
        """Sends a request that fits the budget, and charges what came of it. Raises CapReached
        before anything is sent.
        """
        meter, heard = self._meter, LiveAnswer(None)
        most = most_tokens(len(body), meter.output_limit)
        if why := meter.budget.refusal(most, meter.price):
            raise CapReached(why)
        try:
            answer = await self._channel.post(path, body, headers)
            try:
                whole = MeteredAnswer(answer.status, answer.headers, await answer.body())
            finally:
                await answer.aclose()
            read = whole.read()
            heard = heard if read.failure else read
            return whole
        finally:
            length = len(heard.text.encode("utf-8", "replace"))
            used = settled_tokens(most, heard.tokens, length)
            meter.budget = meter.budget.settle(most, used, meter.price)

    async def aclose(self) -> None:
        await self._channel.aclose()


def models_of(installation: Installation, name: str) -> list[tuple[Provider, str]]:
    """PROVIDER/MODEL, registered or not, or all registered models of a PROVIDER. Raises
    NotFound, InputError.
    """
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
        expected = live_checks.EXPECTED[LiveScenario.ANSWER]
        lacking = LiveFinding("key", LiveOutcome.FAILS, expected, "it has no key", step)
        return TargetReport(name, ok=False, findings=[lacking])
    meter.price = provider.prices.get(model)
    quiet = _quiet(installation)
    with closing(quiet.store):
        run = _LiveRun(quiet, provider, model, meter, timeout_s)
        run.try_all()
    findings = [
        # A provider may call itself by the key that it was sent.
        replace(finding, found=without_secrets(finding.found, provider, keys))
        for finding in run.findings()
    ]
    failed = any(finding.outcome is LiveOutcome.FAILS for finding in findings)
    capped = any(isinstance(why, CapReached) for why in run.untried.values())
    return TargetReport(name, not (failed or capped), findings)


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
    """One model's run: who is asked, and what came of each scenario."""

    installation: Installation
    provider: Provider
    model: str
    meter: LiveMeter
    timeout_s: float
    answers: dict[LiveScenario, LiveAnswer] = field(default_factory=dict)
    untried: dict[str, object] = field(default_factory=dict)  # by scenario, why
    tools: Sequence[ToolFinding] = ()

    def try_all(self) -> None:
        with self._channel(self.model) as (channel, route):
            asyncio.run(self._ask_all(channel, route, _OF_THE_MODEL))
        if self._hopeless():
            return
        self._try_tools()
        with self._channel(self.model + live_checks.UNKNOWN_SUFFIX) as (channel, route):
            asyncio.run(self._ask_all(channel, route, [LiveScenario.MODEL]))

    def findings(self) -> Iterator[LiveFinding]:
        for scenario in LiveScenario:
            if scenario is LiveScenario.PARAMETER:
                yield from self._tool_findings()
            if scenario in self.answers:
                yield live_checks.judge_answer(scenario, self.answers[scenario], self.model)
            else:
                yield self._untried(scenario.value, live_checks.EXPECTED[scenario])

    def _hopeless(self) -> bool:
        answer = self.answers.get(LiveScenario.ANSWER)
        return answer is not None and answer.failure in _HOPELESS

    @contextmanager
    def _channel(self, model: str) -> Iterator[tuple[MeteredChannel, str]]:
        """A metered channel to a router before this model alone, and its route."""
        self.meter.output_limit = live_checks.ANSWER_LIMIT
        limit = {AnswerLimit.MAX_TOKENS.value: live_checks.ANSWER_LIMIT}
        target = Target(self.provider.name, model, limit)
        with tempfile.TemporaryDirectory(prefix="swapgate-doctor-") as folder:
            alone = single_target_router(self.installation, target, self.provider, Path(folder))
            inner = InProcessChannel(alone.router, alone.key)
            yield MeteredChannel(inner, self.meter), alone.route

    async def _ask_all(
        self, channel: MeteredChannel, route: str, scenarios: Sequence[LiveScenario]
    ) -> None:
        """Asks one scenario after the other, and closes the channel."""
        declared = self.provider.can(self.model).json_schema
        try:
            for scenario in scenarios:
                if scenario is LiveScenario.STRUCTURED and not declared:
                    self.untried[scenario] = "json_schema: false is declared for the model"
                    continue
                body = {"model": route, **self._body(scenario)}
                try:
                    async with asyncio.timeout(self.timeout_s):
                        answer = await channel.post(_CHAT, json.dumps(body).encode(), {})
                    self.answers[scenario] = answer.read()
                except CapReached as reached:
                    self.untried[scenario] = reached
                except TimeoutError:
                    self.answers[scenario] = LiveAnswer(None, FailureClass.TIMEOUT.value)
                except CallFailed:
                    self.answers[scenario] = LiveAnswer(None, FailureClass.MALFORMED.value)
                if self._hopeless():
                    return
        finally:
            await channel.aclose()

    def _body(self, scenario: LiveScenario) -> Mapping[str, object]:
        """What a scenario asks; the answer's limit is the target's where none is said."""
        question = _QUESTIONS.get(scenario, live_checks.QUESTION)
        fields = _FIELDS.get(scenario, {})
        if scenario is LiveScenario.LENGTH:
            kind = PROVIDER_KINDS.get(self.provider.kind)
            named = kind.answer_limit if kind is not None else None
            fields = {(named or AnswerLimit.MAX_TOKENS).value: live_checks.SHORT_LIMIT}
        return {"messages": [{"role": "user", "content": question}], **fields}

    def _try_tools(self) -> None:
        """The loops of `doctor --tools`, with as many of their calls as the caps allow."""

        def error_text(error: Exception) -> str:
            """Without the provider's words, which may repeat what it was asked."""
            if isinstance(error, CapReached):
                self.untried.setdefault(_TOOLS, error)
            status = error.status if isinstance(error, CallFailed) else None
            return f"it fails (status {status or 'none'})"

        with self._channel(self.model) as (channel, route):
            loops = tool_checks.probe_loops(channel, route, self.timeout_s, error_text)
            seen = asyncio.run(loops)
        if _TOOLS not in self.untried:
            target = Target(self.provider.name, self.model)
            self.tools = list(tool_probe.tool_findings(self.provider, target, seen))

    def _tool_findings(self) -> Iterator[LiveFinding]:
        if not self.tools:
            yield self._untried(_TOOLS, _TOOLS_EXPECTED)
        for finding in self.tools:
            scenario, found = f"tools: {finding.subject}", _QUOTED.split(finding.found, 1)[0]
            outcome = _outcome(finding)
            yield LiveFinding(scenario, outcome, _TOOLS_EXPECTED, found, finding.next_step)

    def _untried(self, scenario: str, expected: str) -> LiveFinding:
        why = self.untried.get(scenario, "the plain answer failed")
        return live_checks.untried(scenario, expected, str(why))


def _outcome(finding: ToolFinding) -> LiveOutcome:
    if finding.failed:
        return LiveOutcome.FAILS
    if finding.outcome is ToolOutcome.NOT_SEEN:
        return LiveOutcome.NOT_TRIED
    return LiveOutcome.DIFFERS if finding.next_step else LiveOutcome.WORKS
