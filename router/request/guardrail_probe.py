"""Measures a finished answer for its rollout's guardrails. Other requests have no probe.

`RouteGuardrails` says for a route which measurements its guardrails need, `GuardrailProbe`
measures one request. Only values and faults leave this module, as `GuardrailSample`; no
text of an answer does. `router.observers.guardrail_sampling` attaches the probe, and the
gate compares the samples.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple, Self
from unicodedata import normalize

from harness.frame.matching import matches_schema
from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.prompt_cache import CacheUse, saved_seconds
from harness.gate.online.reading.scored_exposures import (
    FAULTS,
    NEEDS,
    GuardrailSample,
    RequestTraits,
    SampleValues,
)
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import TokenPrice
from router.frame.body import ClientRequest
from router.protocols.answer_signals import DIGEST_BYTES, AnswerSignals
from router.protocols.answers import (
    NO_JSON,
    NO_USAGE,
    TokenUsage,
    parse_json,
)
from router.protocols.endpoints import DIALECTS
from router.snapshot.compiled import CompiledRoute


def are_calls_valid(calls: Iterable[tuple[str, object]], offered: Mapping[str, object]) -> bool:
    """Returns whether each call names an offered tool and fits its schema.

    Args:
        calls: name and arguments, as JSON text or parsed.
        offered: schemas by tool; None accepts any text.

    An empty list of calls is valid.
    """
    for name, raw_arguments in calls:
        if name not in offered:
            return False
        schema = offered[name]
        if schema is None:
            continue
        arguments = (
            parse_json(raw_arguments) if isinstance(raw_arguments, str) else raw_arguments
        )
        if not isinstance(arguments, Mapping):
            return False
        if isinstance(schema, Mapping) and not matches_schema(arguments, schema):
            return False
    return True


_TEXT_GUARDRAILS: Final = frozenset({Guardrail.JSON_VALIDITY, Guardrail.TOOL_VALIDITY})
_SIGNAL_GUARDRAILS: Final = _TEXT_GUARDRAILS | {
    Guardrail.TRUNCATION,
    Guardrail.REFUSALS,
    Guardrail.OUTPUT_TOKENS,
    Guardrail.REPEATS,
}
_PRICED = RequestTraits.PRICED.value
_WORDED = RequestTraits.WORDS.value
_STREAMS = RequestTraits.STREAMS.value
_JSON = RequestTraits.JSON.value
_TOOLS = RequestTraits.TOOLS.value
_JUDGED: Final = RequestTraits.JUDGED.value
_SERVED: Final = RequestTraits.SERVED.value
_SERVED_PRICED: Final = _SERVED | _PRICED
# Up to Python 3.11, to find a member in its class takes ten times as long.
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS


class RequestCost(NamedTuple):
    """The times, tokens and cost of one request, as `GuardrailSampling` collects them.

    All times are in seconds. first_token_s and last_token_s begin when the request came,
    and are None for a plain answer. opening_s is the part of elapsed_s that opened a
    connection to the provider. cost_usd is None if it is unknown. bounded: the tokens and the
    cost are lower bounds, because a provider's count is missing.
    """

    elapsed_s: float
    first_token_s: float | None
    last_token_s: float | None
    output_tokens: int
    cost_usd: float | None
    usage: TokenUsage = NO_USAGE
    price: TokenPrice | None = None
    opening_s: float = 0.0
    bounded: bool = False


class GuardrailProbe(NamedTuple):
    """Measures one request's answer: its values, and the guardrails that it breaks."""

    request: ClientRequest
    traits: int  # flags of `RequestTraits`
    listens: bool  # a guardrail needs the answer's signals
    keeps: bool  # a guardrail needs the answer's whole text
    has_caches: bool  # each target of the route may have a prompt cache

    def new_signals(self) -> AnswerSignals | None:
        """Returns an empty collector for the answer's signals; None if no guardrail needs
        one.
        """
        return AnswerSignals(keeps=self.keeps) if self.listens else None

    def sample(
        self,
        signals: AnswerSignals | None,
        spent: RequestCost,
        *,
        failed: bool,
    ) -> GuardrailSample:
        """Returns the sample; a failed request's sample has no values.

        If the caller hung up, the elapsed time ends then.

        The time between tokens is (last − first) / (tokens − 1), in seconds. It is 0 for a
        plain answer, and for fewer than two tokens. It is unknown if the provider did not count
        the tokens. A plain answer's first token comes with its end.
        """
        if failed:
            return GuardrailSample(SampleValues())
        (elapsed_s, first_s, last_s, counted, cost_usd, usage, price, opening_s, bounded) = (
            spent
        )
        tokens = float(counted)
        # Two tokens or more are needed for a time between tokens.
        between_s: float | None = 0.0
        if first_s is None:
            first_s = elapsed_s
        elif bounded:
            between_s = None
        elif last_s is not None and tokens >= 2.0:
            between_s = max(0.0, last_s - first_s) / (tokens - 1.0)
        input_tokens, _, cached, written, hour, _ = usage
        cache = CacheUse(
            input_tokens,
            cached,
            price.cache_worth_usd(input_tokens, cached, written, hour)
            if price is not None
            else 0.0,
            saved_seconds(input_tokens, cached, first_s - opening_s)
            if cached and self.has_caches
            else 0.0,
        )
        values = SampleValues(
            elapsed_s,
            first_s,
            between_s,
            tokens,
            cost_usd,
            cache,
            opening_s,
            bounded,
        )
        if signals is None:
            return GuardrailSample(values)
        question = hash_question(self.request) if signals.text_length else 0
        texts = signals.text_digest, signals.text_length, question
        return GuardrailSample(values, self._find_faults(signals), *texts)

    def _find_faults(self, signals: AnswerSignals) -> int:
        """Returns the flags of the guardrails that the answer breaks.

        A refusal is not tested for validity, a truncated answer is. If the answer was too
        long to keep, its validity is unknown, and counts as good.
        """
        faults = FAULTS[Guardrail.TRUNCATION] if signals.truncated else 0
        if signals.declined:
            return (
                faults | FAULTS[Guardrail.REFUSALS]
            )  # a refusal in plain text is not invalid JSON
        if not self.keeps or signals.cut:
            return faults
        dialect = DIALECTS[self.request.endpoint]
        calls = signals.calls
        if self.traits & _JSON and not (calls or _is_json(signals, self.request)):
            faults |= FAULTS[Guardrail.JSON_VALIDITY]
        if calls and self.traits & _TOOLS:
            made_calls = ((call.name, call.arguments) for call in calls)
            if not are_calls_valid(made_calls, dialect.tools(self.request)):
                faults |= FAULTS[Guardrail.TOOL_VALIDITY]
        return faults


def hash_question(request: ClientRequest) -> int:
    """Hashes the last user message that has a text; 0 without one.

    Messages that differ only in white space or Unicode's form are one question (NFC).
    """
    members = request.members.found
    content = request.value("messages" if "messages" in members else "input")
    words = content.split() if isinstance(content, str) else _find_last_user_words(content)
    if not words:
        return 0
    text = normalize("NFC", " ".join(words)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=DIGEST_BYTES).digest())


def _find_last_user_words(messages: object) -> list[str]:
    """Returns the words of the last user message that has some; empty without one."""
    # Loops instead of generators, which would cost a call for each message and part.
    for message in reversed(messages) if isinstance(messages, list) else ():
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        content = message.get("content")
        words = list[str]()
        for part in content if isinstance(content, list) else (content,):
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                words += text.split()
        if words:
            return words
    return []


class RouteGuardrails(NamedTuple):
    """The measurements that one route's guardrails need, compiled once for each revision."""

    # traits, heard and kept are flags of `RequestTraits`.
    traits: int  # of each request
    heard: int  # if a request has one of these, the probe needs the answer's signals
    kept: int  # if a request has one of these, it keeps the answer's text
    has_caches: bool = True

    @classmethod
    def from_route(cls, route: CompiledRoute, rule: ExposureRule) -> Self | None:
        """Compiles a rollout's guardrails; None if the rule has no guardrails.

        Costs count only if all targets of the route have a price.
        """
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
        for guardrail in _SIGNAL_GUARDRAILS.intersection(rule.guardrails):
            heard |= NEEDS[guardrail]
            kept |= NEEDS[guardrail] if guardrail in _TEXT_GUARDRAILS else 0
        return cls(_SERVED_PRICED if is_priced else _SERVED, heard, kept, has_caches)

    def probe(self, request: ClientRequest, *, is_judged: bool = False) -> GuardrailProbe:
        """Returns the probe of one request.

        Args:
            is_judged: the request is in the judge's sample.
        """
        traits = self.traits
        if request.endpoint is not _EMBEDDINGS:
            traits |= _WORDED
            if request.stream:
                traits |= _STREAMS
            if request.members.get("tools"):
                traits |= _TOOLS
            if DIALECTS[request.endpoint].schema(request) is not None:
                traits |= _JSON
        listens = traits & self.heard != 0
        keeps = traits & self.kept != 0
        return GuardrailProbe(
            request,
            traits | _JUDGED if is_judged else traits,
            listens,
            keeps,
            self.has_caches,
        )


def _is_json(signals: AnswerSignals, request: ClientRequest) -> bool:
    """Returns whether each text of the answer is JSON that fits the requested schema."""
    schema = DIALECTS[request.endpoint].schema(request)
    values = [parse_json(text) for text in signals.texts()]
    return bool(values) and all(
        value is not NO_JSON and matches_schema(value, schema or {}) for value in values
    )
