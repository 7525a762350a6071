"""Runs the same scenarios on a provider's model, with the user's own key and below a cap, and
on our simulator in the same dialect: `swapgate doctor --live`.

Each request goes the router's own way, through a router made for it alone that tries nothing
again. `models_of` finds what a name means, `report` runs and compares.
"""

import asyncio
import json
import secrets
import string
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from evals.sim.app import build_app
from evals.sim.server import listener_url, open_listener, server, simulator
from harness.app.doctor import tool_checks
from harness.app.doctor.live_meter import CapReached, LiveMeter, MeteredChannel
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
from harness.domain.providers.live_answer import (
    LiveAnswer,
    answer_form,
    read_events,
    read_whole,
)
from harness.domain.providers.live_budget import LiveBudget
from harness.domain.providers.live_checks import (
    ANSWER_LIMIT,
    EXPECTED,
    SHORT_LIMIT,
    LiveDifference,
    LiveFinding,
    LiveOutcome,
    LiveScenario,
)
from harness.domain.providers.tool_probe import ToolFinding, ToolOutcome
from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import ANTHROPIC_KIND, Provider, Target
from harness.domain.settings import AnsweredModel
from harness.domain.sse import EventPayloads

_CHAT: Final = "/v1/chat/completions"
SIMULATED_MODEL: Final = "sim-base"
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
    compared: bool  # with our simulator
    answered: bool = False  # at all: else there is nothing to compare
    differences: Sequence[LiveDifference] = ()


@dataclass(frozen=True, slots=True)
class _Subject:
    """Who is asked. secret: the key to send, empty for the provider's own."""

    provider: Provider
    model: str
    keys: tuple[ProviderKey, ...]
    secret: str = ""


@dataclass
class _Trace:
    """What came of each scenario."""

    answers: dict[LiveScenario, LiveAnswer] = field(default_factory=dict)
    untried: dict[str, str] = field(default_factory=dict)  # by scenario, why
    capped: bool = False  # a call was not made, for the budget
    tools: Sequence[ToolFinding] = ()


class _Payloads(EventPayloads):
    def _error(self, why: str) -> Exception:
        return CallFailed(f"the stream cannot be read: {why}")


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
    """Runs, judges and compares. timeout_s: for each request, and for the tool loops."""
    keys = provider_secrets.keys_of_provider(installation.context, provider)
    name = f"{provider.name}/{model}"
    if lacks_key(provider, keys):
        step = f"`swapgate provider key set {provider.name}`"
        expected = EXPECTED[LiveScenario.ANSWER]
        finding = LiveFinding("key", LiveOutcome.FAILS, expected, "it has no key", step)
        return LiveReport(name, ok=False, findings=[finding], compared=False)
    meter.price = provider.prices.get(model)
    subject = _Subject(provider, model, keys)
    quiet, compared = _quiet(installation), _simulated(provider)
    with closing(quiet.store):
        trace = _run(quiet, subject, meter, timeout_s)
        answered = bool(trace.answers or trace.tools)
        differences = (
            _compare(quiet, subject, trace, timeout_s) if compared and answered else []
        )
    findings = [_without_secrets(finding, subject) for finding in _findings(subject, trace)]
    failed = any(finding.outcome is LiveOutcome.FAILS for finding in findings)
    ok = not (failed or trace.capped)
    return LiveReport(name, ok, findings, compared and answered, answered, differences)


def _compare(
    installation: Installation, subject: _Subject, trace: _Trace, timeout_s: float
) -> list[LiveDifference]:
    """The same run on our simulator, which costs nothing, and what differs."""
    with _simulator() as (url, key):
        provider = Provider("simulator", subject.provider.kind, f"{url}/v1")
        sim = _Subject(provider, SIMULATED_MODEL, (ProviderKey("simulator", key),), key)
        free = LiveMeter(LiveBudget(0.0, max_tokens=10**9))
        return _differences(subject, trace, sim, _run(installation, sim, free, timeout_s))


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
        others = {
            LiveScenario.MODEL: replace(
                subject, model=subject.model + live_checks.UNKNOWN_SUFFIX
            ),
            LiveScenario.KEY: replace(subject, secret=_random_key(subject)),
        }
        for scenario, other in others.items():
            if scenario is LiveScenario.KEY and not other.secret:
                trace.untried[scenario] = (
                    "the key has no form in which another one can be invented"
                    if subject.keys
                    else "the provider has no key"
                )
                continue
            with _channel(installation, other, meter) as (channel, route):
                asyncio.run(_ask_all(channel, route, other, trace, timeout_s, (scenario,)))
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
        alone = single_target_router(
            installation, target, subject.provider, Path(folder), secret=subject.secret
        )
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
        payloads = _Payloads()
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


def _random_key(subject: _Subject) -> str:
    """A key of the same form that nobody was given; empty where no form can be kept.

    The beginning up to the first hyphen, underscore or colon stays, and each letter and digit
    behind it becomes another one.
    """
    kind = PROVIDER_KINDS.get(subject.provider.kind)
    if not subject.keys or (kind is not None and kind.claim_headers):
        return ""
    key = subject.keys[0].secret
    if key.startswith("{"):  # a document, such as a service account's
        return ""
    alphabets = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
    start = next((at + 1 for at, char in enumerate(key[:8]) if char in "-_:"), 0)
    end = "".join(
        next((secrets.choice(letters) for letters in alphabets if char in letters), char)
        for char in key[start:]
    )
    made = key[:start] + end
    return made if made != key else ""


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


def _simulated(provider: Provider) -> bool:
    """Whether our simulator speaks the dialect that chats of this kind are sent in."""
    kind = PROVIDER_KINDS.get(provider.kind)
    if kind is not None and kind.claim_headers:
        return False
    return kind is None or provider.kind == ANTHROPIC_KIND or Endpoint.CHAT not in kind.adapted


@contextmanager
def _simulator() -> Iterator[tuple[str, str]]:
    """Our simulator on loopback while this lasts: its address, and the only key that it
    takes.
    """
    key = f"sk-sim-{secrets.token_hex(16)}"
    with open_listener("127.0.0.1", 0) as listener:
        app = build_app(simulator(time_scale=0), allow_switches=False, key=key)
        serving = server(app)
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener_url(listener), key
        finally:
            serving.should_exit = True
            thread.join()


def _differences(
    subject: _Subject, trace: _Trace, sim: _Subject, sim_trace: _Trace
) -> list[LiveDifference]:
    """Where the provider's answers have another form than the simulator's; of what both were
    asked.
    """
    differences: list[LiveDifference] = []
    for scenario, answer in trace.answers.items():
        if (simulated := sim_trace.answers.get(scenario)) is not None:
            differences += live_checks.compare_forms(
                scenario.value,
                answer_form(answer, subject.model),
                answer_form(simulated, sim.model),
            )
    if trace.tools:
        differences += live_checks.compare_forms(
            "tools",
            {finding.subject: finding.outcome.value for finding in trace.tools},
            {finding.subject: finding.outcome.value for finding in sim_trace.tools},
        )
    return differences
