"""Tries a provider's model with the user's own key, below a cap: `swapgate doctor --live`.

Each request takes the router's own path, through a router made for it alone that tries nothing
again. `models_of` finds what a name means, `report` runs and judges.
"""

import asyncio
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from harness.app.doctor import tool_checks
from harness.app.doctor.live_meter import CapReached, LiveMeter, MeteredChannel, StreamPayloads
from harness.app.embedded import single_target_router
from harness.app.installation import Installation
from harness.client.channel import Channel
from harness.client.in_process import InProcessChannel
from harness.control.providers import provider_secrets
from harness.domain.errors import CallFailed, InputError, NotFound
from harness.domain.providers import live_checks, tool_probe
from harness.domain.providers.catalogue import with_catalogue_prices
from harness.domain.providers.credentials import ProviderKey, hide_provider_secrets, lacks_key
from harness.domain.providers.kinds import PROVIDER_KINDS, AnswerLimit
from harness.domain.providers.live_answer import LiveAnswer, read_events, read_whole
from harness.domain.providers.live_checks import (
    ANSWER_LIMIT,
    EXPECTED,
    SHORT_LIMIT,
    LiveFinding,
    LiveOutcome,
    LiveScenario,
)
from harness.domain.providers.tool_probe import ToolFinding, ToolOutcome
from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import Provider, Target
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
_OF_THE_MODEL: Final = (
    LiveScenario.ANSWER,
    LiveScenario.LENGTH,
    LiveScenario.STREAM,
    LiveScenario.STRUCTURED,
    LiveScenario.PARAMETER,
)
_TOOLS_EXPECTED: Final = "as declared of the model"
_QUOTED: Final = ("'", '"')


@dataclass(frozen=True, slots=True)
class LiveReport:
    """What the run found of one model."""

    target: str
    ok: bool  # all was tried that the caps allow, and nothing fails
    findings: Sequence[LiveFinding]


@dataclass(frozen=True, slots=True)
class _Subject:
    """Who is asked, with which keys."""

    provider: Provider
    model: str
    keys: tuple[ProviderKey, ...]


@dataclass
class _Trace:
    """What came of each scenario."""

    answers: dict[LiveScenario, LiveAnswer] = field(default_factory=dict)
    untried: dict[str, str] = field(default_factory=dict)  # by scenario, why
    capped: bool = False  # a call was not made, for the budget
    tools: Sequence[ToolFinding] = ()


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
) -> LiveReport:
    """Runs and judges every scenario. timeout_s: for each request, and for the tool loops."""
    keys = provider_secrets.keys_of_provider(installation.context, provider)
    name = f"{provider.name}/{model}"
    if lacks_key(provider, keys):
        step = f"`swapgate provider key set {provider.name}`"
        expected = EXPECTED[LiveScenario.ANSWER]
        finding = LiveFinding("key", LiveOutcome.FAILS, expected, "it has no key", step)
        return LiveReport(name, ok=False, findings=[finding])
    meter.price = provider.prices.get(model)
    subject = _Subject(provider, model, keys)
    quiet = _quiet(installation)
    with closing(quiet.store):
        trace = _run(quiet, subject, meter, timeout_s)
    findings = [_without_secrets(finding, subject) for finding in _findings(subject, trace)]
    failed = any(finding.outcome is LiveOutcome.FAILS for finding in findings)
    return LiveReport(name, not (failed or trace.capped), findings)


def _quiet(installation: Installation) -> Installation:
    """The installation with a router that calls a provider when it is asked, and then once."""
    settings = installation.settings
    retry = replace(settings.router.retry, tries_per_target=1, attempts=1)
    router = replace(
        settings.router,
        retry=retry,
        health_check_interval_s=0.0,
        response_model=AnsweredModel.PROVIDER,
    )
    return replace(installation, settings=replace(settings, router=router))


def _run(
    installation: Installation, subject: _Subject, meter: LiveMeter, timeout_s: float
) -> _Trace:
    trace = _Trace()
    with _channel(installation, subject, meter) as (channel, route):
        asyncio.run(_ask_all(channel, route, subject, trace, timeout_s))
    if _HOPELESS.isdisjoint({_failure(trace, LiveScenario.ANSWER)}):
        _run_tools(installation, subject, meter, trace, timeout_s)
        unknown = replace(subject, model=subject.model + live_checks.UNKNOWN_SUFFIX)
        with _channel(installation, unknown, meter) as (channel, route):
            scenarios = (LiveScenario.MODEL,)
            asyncio.run(_ask_all(channel, route, unknown, trace, timeout_s, scenarios))
    return trace


def _failure(trace: _Trace, scenario: LiveScenario) -> str:
    answer = trace.answers.get(scenario)
    return answer.failure if answer is not None else ""


@contextmanager
def _channel(
    installation: Installation, subject: _Subject, meter: LiveMeter
) -> Iterator[tuple[Channel, str]]:
    """A metered channel to a router before this model alone."""
    meter.output_limit = ANSWER_LIMIT
    limit = {AnswerLimit.MAX_TOKENS.value: ANSWER_LIMIT}
    target = Target(subject.provider.name, subject.model, limit)
    with tempfile.TemporaryDirectory(prefix="swapgate-doctor-") as folder:
        alone = single_target_router(installation, target, subject.provider, Path(folder))
        inner = InProcessChannel(alone.router, alone.key)
        yield MeteredChannel(inner, meter), alone.route


async def _ask_all(
    channel: Channel,
    route: str,
    subject: _Subject,
    trace: _Trace,
    timeout_s: float,
    scenarios: Sequence[LiveScenario] = _OF_THE_MODEL,
) -> None:
    """Asks one scenario after the other, and closes the channel."""
    try:
        for scenario in scenarios:
            if scenario is LiveScenario.STRUCTURED and not _declared(subject):
                trace.untried[scenario] = "json_schema: false is declared for the model"
                continue
            try:
                async with asyncio.timeout(timeout_s):
                    trace.answers[scenario] = await _ask(channel, route, subject, scenario)
            except CapReached as reached:
                trace.capped = True
                trace.untried[scenario] = str(reached)
            except TimeoutError:
                trace.answers[scenario] = LiveAnswer(None, FailureClass.TIMEOUT.value)
            except CallFailed:
                trace.answers[scenario] = LiveAnswer(None, FailureClass.MALFORMED.value)
            if _failure(trace, LiveScenario.ANSWER) in _HOPELESS:
                return
    finally:
        await channel.aclose()


def _declared(subject: _Subject) -> bool:
    return subject.provider.can(subject.model).json_schema


async def _ask(
    channel: Channel, route: str, subject: _Subject, scenario: LiveScenario
) -> LiveAnswer:
    body = {"model": route, **_fields(subject, scenario)}
    answer = await channel.post(_CHAT, json.dumps(body).encode(), {})
    try:
        if answer.status != 200 or scenario is not LiveScenario.STREAM:
            attempts = answer.headers.get("x-swapgate-attempts", "")
            return read_whole(answer.status, attempts, await answer.body())
        payloads = StreamPayloads()
        events: list[bytes] = []
        async for piece in answer.pieces():
            events += payloads.read(piece)
        return read_events([*events, *payloads.rest()])
    finally:
        await answer.aclose()


def _fields(subject: _Subject, scenario: LiveScenario) -> Mapping[str, object]:
    """What a scenario asks; the answer's limit is the target's where nothing else is said."""
    question = {
        LiveScenario.LENGTH: live_checks.LONG_QUESTION,
        LiveScenario.STRUCTURED: live_checks.CITY_QUESTION,
    }.get(scenario, live_checks.QUESTION)
    messages = [{"role": "user", "content": question}]
    own: Mapping[str, object]
    match scenario:
        case LiveScenario.LENGTH:
            kind = PROVIDER_KINDS.get(subject.provider.kind)
            named = kind.answer_limit if kind is not None else None
            own = {(named or AnswerLimit.MAX_TOKENS).value: SHORT_LIMIT}
        case LiveScenario.STREAM:
            own = {"stream": True, "stream_options": {"include_usage": True}}
        case LiveScenario.STRUCTURED:
            schema = {"name": "city", "strict": True, "schema": live_checks.CITY_SCHEMA}
            own = {"response_format": {"type": "json_schema", "json_schema": schema}}
        case LiveScenario.PARAMETER:
            own = {"temperature": live_checks.WRONG_TEMPERATURE}
        case _:
            own = {}
    return {"messages": messages, **own}


def _run_tools(
    installation: Installation,
    subject: _Subject,
    meter: LiveMeter,
    trace: _Trace,
    timeout_s: float,
) -> None:
    """The loops of `doctor --tools`, with as many of their calls as the caps allow."""
    reached: list[str] = []

    def error_text(error: Exception) -> str:
        """Without the provider's words, which may repeat what it was asked."""
        if isinstance(error, CapReached):
            reached.append(str(error))
            return str(error)
        status = error.status if isinstance(error, CallFailed) else None
        return f"it fails (status {status or 'none'})"

    with _channel(installation, subject, meter) as (channel, route):
        seen = asyncio.run(tool_checks.probe_loops(channel, route, timeout_s, error_text))
    if reached:
        trace.capped = True
        trace.untried["tools"] = reached[0]
        return
    target = Target(subject.provider.name, subject.model)
    trace.tools = list(tool_probe.tool_findings(subject.provider, target, seen))


def _findings(subject: _Subject, trace: _Trace) -> Iterable[LiveFinding]:
    for scenario in LiveScenario:
        if scenario is LiveScenario.PARAMETER:
            yield from _tool_findings(trace)
        if scenario in trace.answers:
            yield live_checks.judge_answer(scenario, trace.answers[scenario], subject.model)
        else:
            why = trace.untried.get(scenario, "the plain answer failed")
            yield live_checks.untried(scenario.value, EXPECTED[scenario], why)


def _tool_findings(trace: _Trace) -> Iterable[LiveFinding]:
    if not trace.tools:
        why = trace.untried.get("tools", "the plain answer failed")
        yield live_checks.untried("tools", _TOOLS_EXPECTED, why)
    for finding in trace.tools:
        scenario = f"tools: {finding.subject}"
        yield LiveFinding(
            scenario,
            _outcome(finding),
            _TOOLS_EXPECTED,
            _without_quotes(finding.found),
            finding.next_step,
        )


def _outcome(finding: ToolFinding) -> LiveOutcome:
    if finding.failed:
        return LiveOutcome.FAILS
    if finding.outcome is ToolOutcome.NOT_SEEN:
        return LiveOutcome.NOT_TRIED
    return LiveOutcome.DIFFERS if finding.next_step else LiveOutcome.WORKS


def _without_quotes(found: str) -> str:
    """Without what a model called a tool: it may be anything."""
    start = min((found.find(quote) for quote in _QUOTED if quote in found), default=-1)
    return found if start < 0 else found[:start].rstrip(": ")


def _without_secrets(finding: LiveFinding, subject: _Subject) -> LiveFinding:
    """A provider may call itself by the key that it was sent."""
    found = finding.found.encode()
    for key in subject.keys or (None,):
        found = hide_provider_secrets(found, subject.provider, key)
    return replace(finding, found=found.decode("utf-8", "replace"))
