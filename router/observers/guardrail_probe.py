"""A guardrail probe says what a rollout's guardrails need to know of one request, and makes the
sample of its finished answer: latencies, tokens, cost, and faults such as a truncated answer, a
refusal, JSON or tool calls that break their schema.

Made only for requests that a live rollout scores; the others pay nothing.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from harness.domain.canary.guardrails import Guardrail
from harness.domain.canary.unit_rule import UnitRule
from harness.domain.json_schema import matches_schema
from harness.domain.routing.capabilities import Endpoint
from router.protocols.answer_signals import AnswerSignals
from router.protocols.answer_validity import NO_JSON, are_calls_valid, parse_json
from router.protocols.endpoints import DIALECTS
from router.recording.guardrail_sample import (
    FAULTS,
    NEEDS,
    GuardrailSample,
    RequestTraits,
    SampleValues,
)
from router.request.body import ClientRequest
from router.snapshot.compiled import CompiledRoute

_WORDS: Final = frozenset({Guardrail.JSON_VALIDITY, Guardrail.TOOL_VALIDITY})
_LISTENING: Final = _WORDS | {
    Guardrail.TRUNCATION,
    Guardrail.REFUSALS,
    Guardrail.OUTPUT_TOKENS,
}
_PRICED, _WORDED, _STREAMS = (
    RequestTraits.PRICED.value,
    RequestTraits.WORDS.value,
    RequestTraits.STREAMS.value,
)
_JSON, _TOOLS = RequestTraits.JSON.value, RequestTraits.TOOLS.value
# Of text whose provider counts no tokens.
CHARACTERS_PER_TOKEN: Final = 4


class RequestCost(NamedTuple):
    """Holds what a finished request took: time, output tokens and cost."""

    elapsed_s: float
    first_token_s: float | None  # first_token_s, last_token_s: since it came; of a stream
    last_token_s: float | None
    output_tokens: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class GuardrailProbe:
    """Holds what the guardrails of a rollout watch of one request."""

    request: ClientRequest
    traits: int  # of `RequestTraits`
    listens: bool  # a guardrail asks for the answer's signals
    keeps: bool  # for all its text

    @classmethod
    def from_request(
        cls, request: ClientRequest, route: CompiledRoute, rule: UnitRule
    ) -> Self | None:
        """Builds the probe of a request; None where the rollout has no guardrail beside
        errors.
        """
        on = rule.guardrails
        if not on:
            return None
        traits = detect_traits(request, route)
        asked = [
            guardrail
            for guardrail in on
            if guardrail in _LISTENING and _applies(guardrail, traits)
        ]
        return cls(
            request, traits, bool(asked), any(guardrail in _WORDS for guardrail in asked)
        )

    def new_signals(self) -> AnswerSignals | None:
        """Begins the signals of one answer; None where no guardrail asks for them."""
        return AnswerSignals(keeps=self.keeps) if self.listens else None

    def sample(
        self, signals: AnswerSignals | None, spent: RequestCost, *, failed: bool
    ) -> GuardrailSample:
        """Builds the request's sample for the guardrails. signals: of the answer, None where
        none came.

        A failed request is only that: its answer is neither truncated nor bad JSON. Of a caller
        who hung up, the time until then counts; what the whole answer would have taken is not
        known.
        """
        tokens = float(spent.output_tokens)
        if not tokens and signals is not None:
            tokens = float(signals.length // CHARACTERS_PER_TOKEN)
        if failed:
            return GuardrailSample(SampleValues(output_tokens=tokens))
        values = SampleValues(
            latency=spent.elapsed_s,
            time_to_first_token=_or(spent.first_token_s, spent.elapsed_s),
            inter_token_latency=_between_s(spent, tokens),
            output_tokens=tokens,
            cost_per_success=spent.cost_usd,
        )
        return GuardrailSample(values, self._bad(signals) if signals is not None else 0)

    def _bad(self, signals: AnswerSignals) -> int:
        """The answer's faults, of `AnswerFault`."""
        bad = FAULTS[Guardrail.TRUNCATION] if signals.truncated else 0
        if signals.declined:
            return bad | FAULTS[Guardrail.REFUSALS]  # words of its own are no bad JSON
        if not self.keeps or signals.cut:
            return bad
        dialect, calls = DIALECTS[self.request.endpoint], signals.calls
        if self.traits & _JSON and not (calls or _is_json(signals, self.request)):
            bad |= FAULTS[Guardrail.JSON_VALIDITY]
        if calls and self.traits & _TOOLS:
            made = ((call.name, call.arguments) for call in calls)
            if not are_calls_valid(made, dialect.tools(self.request)):
                bad |= FAULTS[Guardrail.TOOL_VALIDITY]
        return bad


def detect_traits(request: ClientRequest, route: CompiledRoute) -> int:
    """Traits of the request and its route, whichever arm it is in."""
    traits = _PRICED
    for upstream in route.upstreams.values():
        if upstream.price is None:
            traits = 0
    if request.endpoint is Endpoint.EMBEDDINGS:
        return traits
    traits |= _WORDED
    if request.stream:
        traits |= _STREAMS
    if request.value("tools"):
        traits |= _TOOLS
    if DIALECTS[request.endpoint].schema(request) is not None:
        traits |= _JSON
    return traits


def _applies(guardrail: Guardrail, traits: int) -> bool:
    needs = NEEDS[guardrail]
    return traits & needs == needs


def _is_json(signals: AnswerSignals, request: ClientRequest) -> bool:
    """Every choice's text is, and as the schema says; no text at all is not."""
    schema = DIALECTS[request.endpoint].schema(request)
    values = [parse_json(text) for text in signals.texts()]
    return bool(values) and all(
        value is not NO_JSON and matches_schema(value, schema or {}) for value in values
    )


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _between_s(spent: RequestCost, tokens: float) -> float:
    """The mean; nobody waited between fewer than two."""
    first, last = spent.first_token_s, spent.last_token_s
    if first is None or last is None or tokens < 2.0:
        return 0.0
    return max(0.0, last - first) / (tokens - 1.0)
