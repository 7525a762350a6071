"""Measures a finished answer for its rollout's guardrails. Other requests have no probe."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Self

from harness.frame.matching import matches_schema
from harness.gate.online.guardrails import Guardrail, UnitRule
from harness.gate.online.prompt_cache import CacheUse, saved_seconds
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import Price
from router.frame.body import ClientRequest
from router.protocols.answer_signals import AnswerSignals
from router.protocols.answers import NO_JSON, NO_USAGE, TokenUsage, parse_json
from router.protocols.endpoints import DIALECTS
from router.recording.scored_units import (
    FAULTS,
    NEEDS,
    GuardrailSample,
    RequestTraits,
    SampleValues,
)
from router.snapshot.compiled import CompiledRoute


def are_calls_valid(calls: Iterable[tuple[str, object]], offered: Mapping[str, object]) -> bool:
    """Returns whether each call names an offered tool and fits its schema.

    offered: schemas by tool; None accepts any text.
    """
    for name, given in calls:
        if name not in offered:
            return False
        schema = offered[name]
        if schema is None:
            continue
        arguments = parse_json(given) if isinstance(given, str) else given
        if not isinstance(arguments, Mapping):
            return False
        if isinstance(schema, Mapping) and not matches_schema(arguments, schema):
            return False
    return True


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
_JUDGED: Final = RequestTraits.JUDGED.value
# Up to Python 3.11, to find a member in its class takes ten times as long.
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS
# An estimate for text if the provider counts no tokens.
CHARACTERS_PER_TOKEN: Final = 4


class RequestCost(NamedTuple):
    elapsed_s: float
    first_token_s: (
        float | None
    )  # first_token_s, last_token_s: since the request came; None without a stream
    last_token_s: float | None
    output_tokens: int
    cost_usd: float
    usage: TokenUsage = NO_USAGE
    price: Price | None = None  # of the target that answered
    opening_s: float = 0.0  # the part of elapsed_s for opening the connection


class GuardrailProbe(NamedTuple):
    request: ClientRequest
    traits: int  # flags of `RequestTraits`
    listens: bool  # a guardrail needs the answer's signals
    keeps: bool  # a guardrail needs the answer's whole text
    has_caches: bool  # each target of the route may have a prompt cache

    def new_signals(self) -> AnswerSignals | None:
        return AnswerSignals(keeps=self.keeps) if self.listens else None

    def sample(
        self, signals: AnswerSignals | None, spent: RequestCost, *, failed: bool
    ) -> GuardrailSample:
        """Returns the sample; a failed request's sample has no values.

        If the caller hung up, the elapsed time ends then.
        """
        tokens = float(spent.output_tokens)
        if not tokens and signals is not None:
            tokens = float(signals.length // CHARACTERS_PER_TOKEN)
        if failed:
            return GuardrailSample(SampleValues(output_tokens=tokens))
        elapsed_s, first_s, last_s, _, cost_usd, usage, price, opening_s = spent
        between_s = 0.0  # two tokens or more are needed for a time between tokens
        if first_s is None:
            first_s = elapsed_s
        elif last_s is not None and tokens >= 2.0:
            between_s = max(0.0, last_s - first_s) / (tokens - 1.0)
        given, _, cached, written, hour = usage
        cache = CacheUse(
            given,
            cached,
            price.cache_worth_usd(given, cached, written, hour) if price is not None else 0.0,
            saved_seconds(given, cached, first_s - opening_s)
            if cached and self.has_caches
            else 0.0,
        )
        values = SampleValues(elapsed_s, first_s, between_s, tokens, cost_usd, cache, opening_s)
        return GuardrailSample(values, self._bad(signals) if signals is not None else 0)

    def _bad(self, signals: AnswerSignals) -> int:
        bad = FAULTS[Guardrail.TRUNCATION] if signals.truncated else 0
        if signals.declined:
            return (
                bad | FAULTS[Guardrail.REFUSALS]
            )  # a refusal in plain text is not invalid JSON
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


class RouteGuardrails(NamedTuple):
    traits: int  # traits of each request; traits, heard and kept are flags of `RequestTraits`
    heard: int  # if a request has one of these, the probe needs the answer's signals
    kept: int  # if a request has one of these, it keeps the answer's text
    has_caches: bool = True

    @classmethod
    def from_route(cls, route: CompiledRoute, rule: UnitRule) -> Self | None:
        if not rule.guardrails:
            return None
        prices = [upstream.price for upstream in route.upstreams.values()]
        is_priced = None not in prices
        # If a known price gives no discount for cached input, the target has no prompt cache,
        # and its times and costs need no adjustment.
        has_caches = all(
            price is None or price.cached_input_usd_per_mtok is not None for price in prices
        )
        # Each of these guardrails applies only to requests with a certain trait.
        heard = kept = 0
        for guardrail in _LISTENING.intersection(rule.guardrails):
            heard |= NEEDS[guardrail]
            kept |= NEEDS[guardrail] if guardrail in _WORDS else 0
        return cls(_PRICED if is_priced else 0, heard, kept, has_caches)

    def probe(self, request: ClientRequest, *, is_judged: bool = False) -> GuardrailProbe:
        traits = self.traits
        if request.endpoint is not _EMBEDDINGS:
            traits |= _WORDED
            if request.stream:
                traits |= _STREAMS
            if request.members.get("tools"):
                traits |= _TOOLS
            if DIALECTS[request.endpoint].schema(request) is not None:
                traits |= _JSON
        listens, keeps = traits & self.heard != 0, traits & self.kept != 0
        return GuardrailProbe(
            request,
            traits | _JUDGED if is_judged else traits,
            listens,
            keeps,
            self.has_caches,
        )


def _is_json(signals: AnswerSignals, request: ClientRequest) -> bool:
    schema = DIALECTS[request.endpoint].schema(request)
    values = [parse_json(text) for text in signals.texts()]
    return bool(values) and all(
        value is not NO_JSON and matches_schema(value, schema or {}) for value in values
    )
