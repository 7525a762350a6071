"""Tries a provider's model with the user's own key, below a cap: `swapgate doctor --live`. A
finding tells the form of an answer, and none of its words.
"""

import asyncio
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

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
from harness.client.types import (
    CompletionRequest,
    CompletionResponse,
    Message,
    StreamChunk,
    Usage,
)
from harness.control.providers import provider_secrets
from harness.domain.errors import AnswerUnreadable, CallFailed, InputError, NotFound
from harness.domain.json_schema import matches_schema
from harness.domain.providers.catalogue import with_catalogue_prices
from harness.domain.providers.credentials import lacks_key
from harness.domain.providers.kinds import PROVIDER_KINDS, AnswerLimit
from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import Price, Provider, Target
from harness.domain.settings import AnsweredModel

ANSWER_LIMIT: Final = 1_024  # tokens of an answer, unless a scenario says another
SHORT_LIMIT: Final = 16
QUESTION: Final = "Reply with the one word: ready"
_CITY_SCHEMA: Final = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
# Below any range; what is too hot for a kind, the router itself makes less so.
_WRONG_TEMPERATURE: Final = -1
_UNKNOWN_SUFFIX: Final = "-swapgate-no-such-model"
# What providers add to a request by themselves: templates, a system prompt.
_ADDED_INPUT_TOKENS: Final = 1_000
_NAME: Final = re.compile(r"[A-Za-z0-9._:/@-]{1,80}")
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


class LiveOutcome(StrEnum):
    WORKS = "works"
    DIFFERS = "differs"  # not as expected, but Swapgate can serve with it
    FAILS = "fails"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class LiveFinding:
    scenario: str
    outcome: LiveOutcome
    expected: str
    found: str
    next_step: str = ""  # empty for none


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    response: CompletionResponse | None = None  # None where the request failed
    chunks: Sequence[StreamChunk] = ()
    failure: str = ""  # the class that the router holds it for; empty for an answer
    status: int | None = None  # of a failure, the provider's; None where it gave none

    @property
    def usage(self) -> Usage | None:
        return self.response.usage if self.response else None

    @property
    def counts(self) -> str:
        used = self.usage
        return f"{used.input_tokens:,} tokens in, {used.output_tokens:,} out" if used else ""

    @property
    def models(self) -> Sequence[str]:
        names = [chunk.model for chunk in self.chunks] if self.chunks else []
        names = names or ([self.response.model] if self.response else [])
        return list(dict.fromkeys(filter(None, names)))

    @property
    def failure_text(self) -> str:
        status = f"status {self.status}" if self.status else "no status"
        return f"{self.failure.replace('_', ' ')} ({status})"


@dataclass
class LiveMeter:
    max_usd: float
    price: Price | None = None  # of the model that is asked now
    spent_usd: float = 0.0
    calls: int = 0
    limit_kept: bool = True  # no answer was longer than it was allowed to be

    def obstacle(self, most: Usage) -> str:
        """Why a call that can take so much is not made; empty where it fits."""
        if not self.limit_kept:
            return "an earlier answer exceeded its token limit, so that no cap holds"
        if self.price is None:
            return "the model's price is unknown: give it one under its provider's `prices`"
        over = self.spent_usd + self._cost_usd(most) > self.max_usd
        return "would pass the cap of --max-usd" if over else ""

    def settle(self, most: Usage, used: Usage | None) -> None:
        """Charges what the provider reports; the most where it reports nothing, or 0."""
        if used is None or used.input_tokens <= 0 or used.output_tokens <= 0:
            used = most
        self.limit_kept = self.limit_kept and used.output_tokens <= most.output_tokens
        self.spent_usd += self._cost_usd(used)
        self.calls += 1

    def _cost_usd(self, call: Usage) -> float:
        if self.price is None:
            return 0.0
        return self.price.cost_usd(call.input_tokens, call.output_tokens)


_Judged = tuple[LiveOutcome, str, str]
_Judge = Callable[[LiveAnswer, CompletionResponse, str], _Judged]
_REPORT: Final = "report it as an issue of Swapgate, with this line"
_NO_USAGE: Final = "its costs stay unknown, so that budgets and the cost guardrail do not work"
_PIN: Final = (
    "propose the model under that name, so that the proof is about the model that serves"
)
_STEPS: Final[Mapping[str, str]] = {
    FailureClass.OUR_KEY: "set the key: `swapgate provider key set PROVIDER`",
    FailureClass.QUOTA: "check the account: its credit, and what the key may do",
    FailureClass.MODEL_UNKNOWN: "name a model that this account has",
    FailureClass.RATE_LIMITED: "run it again once the limit is over",
    FailureClass.OVERLOADED: "run it again later",
    FailureClass.CONNECT: "check api_base and the network: `swapgate doctor`",
    FailureClass.TIMEOUT: "allow more time with --timeout",
    FailureClass.BAD_REQUEST: "see docs/reference/providers.md for what the kind accepts",
}


def _works(found: str) -> _Judged:
    return LiveOutcome.WORKS, found, ""


def _fails(found: str, step: str = _REPORT) -> _Judged:
    return LiveOutcome.FAILS, found, step


def _differs(found: str, step: str = "nothing to do") -> _Judged:
    return LiveOutcome.DIFFERS, found, step


def _plain(answer: LiveAnswer, response: CompletionResponse, model: str) -> _Judged:
    used = response.usage
    if not response.text.strip():
        return _fails("the answer has no text", "raise the model's limit, or report it")
    if response.finish_reason != "stop":
        return _fails(f"the finish reason is {_word(response.finish_reason)}")
    if used is None or min(used.input_tokens, used.output_tokens) <= 0:
        return _fails(f"it reports {answer.counts or 'no usage'}", _NO_USAGE)
    if not answer.models:
        return _differs("it does not say which model answered", _PIN)
    if others := [name for name in answer.models if not name.startswith(model)]:
        known = _NAME.fullmatch(others[0])
        shown = others[0] if known else "another model, by an unusual name,"
        return _differs(f"it says that {shown} answered", _PIN)
    return _works(answer.counts)


def _length(answer: LiveAnswer, response: CompletionResponse, _model: str) -> _Judged:
    output = response.usage.output_tokens if response.usage else None
    if output is not None and output > SHORT_LIMIT:
        return _fails(
            f"{output:,} tokens, though {SHORT_LIMIT} were allowed: it ignores the limit",
            "set a spending limit at the provider: no budget can stop a single long answer",
        )
    if response.finish_reason == "length":
        return _works(answer.counts or "cut off; it reports no usage")
    if output is not None and output < SHORT_LIMIT:
        return _differs(f"it ended by itself after {output} tokens, so no cut-off was observed")
    return _fails(
        f"it was cut off, but its finish reason is {_word(response.finish_reason)}",
        "cut-off answers look complete: check the end of answers in a suite",
    )


def _stream(answer: LiveAnswer, response: CompletionResponse, model: str) -> _Judged:
    plain = _plain(answer, response, model)
    if plain[0] is not LiveOutcome.FAILS and len(answer.models) > 1:
        return _fails("its chunks name several models", _PIN)
    if plain[0] is not LiveOutcome.WORKS:
        return plain
    if answer.chunks[-1].usage is None:
        return _differs("usage comes before the end")
    pieces = sum(bool(chunk.text) for chunk in answer.chunks)
    if pieces < 2:
        return _differs(
            "the whole text comes in one chunk", "do not expect an early first token"
        )
    return _works(f"{pieces} chunks, {answer.counts}")


def _structured(_: LiveAnswer, response: CompletionResponse, _model: str) -> _Judged:
    step = "set json_schema: false for this model in swapgate.yaml"
    try:
        value = json.loads(response.text)
    except (ValueError, RecursionError):
        return _fails("the answer is no JSON", step)
    if not matches_schema(value, _CITY_SCHEMA):
        return _fails("the JSON does not fit the schema", step)
    return _works("JSON that fits")


def _accepted(what: str) -> _Judge:
    """Of a request that the provider was expected to refuse."""
    return lambda *_: _differs(what, "do not rely on this error from the provider")


def _word(finish: str) -> str:
    if finish in ("stop", "length", "tool_calls", "content_filter"):
        return finish
    return "one that the protocol does not have" if finish else "missing"


@dataclass(frozen=True, slots=True)
class LiveScenario:
    name: str
    expected: str
    judge: _Judge
    question: str = QUESTION
    fields: Mapping[str, object] = field(default_factory=dict)  # of the request, beside it
    streamed: bool = False
    limit: int | None = None  # tokens of the answer, where it is not ANSWER_LIMIT
    refused_as: FailureClass | None = None  # how the provider is expected to refuse it

    def find(self, answer: LiveAnswer, model: str) -> LiveFinding:
        if answer.response is not None:
            judged = self.judge(answer, answer.response, model)
        elif self.refused_as is None:
            judged = _fails(answer.failure_text, _STEPS.get(answer.failure, _REPORT))
        elif answer.failure == self.refused_as:
            judged = _works(answer.failure_text)
        else:
            expected = self.refused_as.value.replace("_", " ")
            judged = _fails(f"{answer.failure_text}; {expected} was expected")
        outcome, found, step = judged
        return LiveFinding(self.name, outcome, self.expected, found, step)

    def untried(self, why: str = "the plain answer failed") -> LiveFinding:
        return LiveFinding(self.name, LiveOutcome.NOT_TRIED, self.expected, f"not tried: {why}")


_STRUCTURED: Final = LiveScenario(
    "structured output",
    "JSON that fits the schema",
    _structured,
    "Which city is the capital of Norway? Answer as JSON.",
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "city", "strict": True, "schema": _CITY_SCHEMA},
        }
    },
)
# Of the model itself, in their order.
SCENARIOS: Final = (
    LiveScenario(
        "plain answer", "text, finish reason stop, usage above 0, the model's name", _plain
    ),
    LiveScenario(
        "length stop",
        f"finish reason length, at most {SHORT_LIMIT} tokens",
        _length,
        "Count from one to two hundred, in words, without a break.",
        limit=SHORT_LIMIT,
    ),
    LiveScenario(
        "stream",
        "several chunks, finish reason stop, usage at the end, the same model",
        _stream,
        streamed=True,
    ),
    _STRUCTURED,
    LiveScenario(
        "wrong parameter",
        "refused with a 400, which a router returns to the client",
        _accepted(f"it answers with temperature {_WRONG_TEMPERATURE}"),
        fields={"temperature": _WRONG_TEMPERATURE},
        refused_as=FailureClass.BAD_REQUEST,
    ),
)
_UNKNOWN_MODEL: Final = LiveScenario(
    "unknown model",
    "refused as an unknown model: a router alerts and asks the next target",
    _accepted("it answers a request for a model that does not exist"),
    refused_as=FailureClass.MODEL_UNKNOWN,
)


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
    """Runs and judges every scenario. timeout_s: for each request."""
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
        run.ask(model + _UNKNOWN_SUFFIX, (_UNKNOWN_MODEL,))
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
    meter: LiveMeter
    timeout_s: float
    findings: list[LiveFinding] = field(default_factory=list)
    is_capped: bool = False
    is_hopeless: bool = False

    def ask(self, model: str, scenarios: Sequence[LiveScenario]) -> None:
        """Asks one scenario after the other; none once a call was in vain for all."""
        if self.is_hopeless:
            self.findings += [scenario.untried() for scenario in scenarios]
            return
        target = Target(self.provider.name, model, {AnswerLimit.MAX_TOKENS.value: ANSWER_LIMIT})
        with tempfile.TemporaryDirectory(prefix="swapgate-doctor-") as folder:
            router, key = single_target_router(
                self.installation, target, self.provider, Path(folder)
            )
            channel = InProcessChannel(router, key)
            client = AsyncModelClient(channel, self.installation.clock, repeats=False)
            asyncio.run(self._ask_all(client, model, scenarios))

    async def _ask_all(
        self, client: AsyncModelClient, model: str, scenarios: Sequence[LiveScenario]
    ) -> None:
        async with client:
            for scenario in scenarios:
                self.findings.append(await self._ask(client, model, scenario))

    async def _ask(
        self, client: AsyncModelClient, model: str, scenario: LiveScenario
    ) -> LiveFinding:
        if self.is_hopeless:
            return scenario.untried()
        if scenario is _STRUCTURED and not self.provider.can(model).json_schema:
            return scenario.untried("json_schema: false is declared for the model")
        fields = dict(scenario.fields)
        # Without one, the answer's limit is the target's.
        if scenario.limit is not None:
            kind = PROVIDER_KINDS.get(self.provider.kind)
            named = kind.answer_limit if kind is not None else None
            fields[(named or AnswerLimit.MAX_TOKENS).value] = scenario.limit
        asked = (Message.user(scenario.question),)
        request = CompletionRequest(messages=asked, route=ROUTE, extra=fields)
        # No tokenizer makes two tokens of one byte.
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
            self.meter.settle(most, answer.usage)
        self.is_hopeless = scenario is SCENARIOS[0] and answer.failure in _HOPELESS
        return scenario.find(answer, model)


async def _read(
    client: AsyncModelClient, request: CompletionRequest, *, streamed: bool
) -> LiveAnswer:
    if not streamed:
        return LiveAnswer(await client.complete(request))
    async with client.stream(request) as stream:
        chunks = [chunk async for chunk in stream]
        return LiveAnswer(stream.response(), chunks)


def _failed(error: CallFailed) -> LiveAnswer:
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
    # A client's mistake is answered with the provider's own words and status.
    return LiveAnswer(failure=FailureClass.BAD_REQUEST.value, status=error.status)
