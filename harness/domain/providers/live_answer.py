"""A live answer is what a conformance run keeps of a provider's answer: its form, and no more
of its words than a judgement needs. The live budget allows a call only where its most expensive
outcome still fits. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self

from harness.domain.plain_data import read_object
from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.target import Price

# What providers add to a request by themselves: templates, a system prompt for tools.
ADDED_INPUT_TOKENS: Final = 1_000
# Ordinary text has more tokens than that: an answer that reports fewer is not believed.
BYTES_PER_TOKEN: Final = 10


@dataclass(frozen=True, slots=True)
class CallTokens:
    """The tokens of one call."""

    input: int
    output: int

    @property
    def total(self) -> int:
        return self.input + self.output


def most_tokens(body_bytes: int, output_limit: int) -> CallTokens:
    """The most that a call can take: no tokenizer makes two tokens of one byte."""
    return CallTokens(body_bytes + ADDED_INPUT_TOKENS, output_limit)


def settled_tokens(
    most: CallTokens, reported: CallTokens | None, answer_bytes: int
) -> CallTokens:
    """What a call is charged: what the provider reports, but no less than its answer is long;
    the most where it reports nothing, or 0.
    """
    least = answer_bytes // BYTES_PER_TOKEN
    if reported is None or reported.input <= 0 or reported.output <= 0:
        return CallTokens(most.input, max(most.output, least))
    return CallTokens(reported.input, max(reported.output, least))


@dataclass(frozen=True, slots=True)
class LiveBudget:
    """The caps of a live run, and what was spent of them."""

    max_usd: float
    max_tokens: int | None = None  # of input and output together; None for no such cap
    spent_usd: float = 0.0
    spent_tokens: int = 0
    calls: int = 0
    limit_kept: bool = True  # no answer was longer than it was allowed to be

    def refusal(self, call: CallTokens, price: Price | None) -> str:
        """Says why a call may not be made; empty where it may."""
        if not self.limit_kept:
            return "an earlier answer exceeded its token limit, so that no cap holds"
        if price is None and self.max_tokens is None:
            return "the model's price is unknown: give --max-tokens-in-all"
        after = self.charge(call, price)
        if after.spent_usd > self.max_usd:
            return "would pass the cap of --max-usd"
        if self.max_tokens is not None and after.spent_tokens > self.max_tokens:
            return "would pass the cap of --max-tokens-in-all"
        return ""

    def settle(self, most: CallTokens, used: CallTokens, price: Price | None) -> Self:
        """Charges a call whose answer is there. most: as `most_tokens` has it."""
        kept = self.limit_kept and used.output <= most.output
        return replace(self.charge(used, price), limit_kept=kept)

    def charge(self, call: CallTokens, price: Price | None) -> Self:
        """Adds a call. price: None adds tokens alone."""
        usd = price.cost_usd(call.input, call.output) if price is not None else 0.0
        return replace(
            self,
            spent_usd=self.spent_usd + usd,
            spent_tokens=self.spent_tokens + call.total,
            calls=self.calls + 1,
        )


_OURS: Final = "refused by the router"


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """What came of one request."""

    status: int | None  # the provider's; None where it gave none
    failure: str = ""  # the class that the router holds it for; empty for an answer
    text: str = field(default="", repr=False)
    finish: str = ""
    usage: Mapping[str, object] | None = field(default=None, repr=False)
    models: Sequence[str] = field(
        default=(), repr=False
    )  # each name that it gives itself, once
    chunks: int = 0  # with text
    usage_last: bool = False

    @property
    def tokens(self) -> CallTokens | None:
        """The tokens that it reports; None where it reports none."""
        if self.usage is None:
            return None
        found = [self.usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        if not all(isinstance(count, int) for count in found):
            return None
        return CallTokens(*(int(str(count)) for count in found))


def read_whole(status: int, attempts: str, body: bytes) -> LiveAnswer:
    """Reads an answer of a router with one target. attempts: of its header."""
    data = read_object(body) or {}
    if status != 200:
        return _refusal(status, attempts, data)
    choice = _first(data.get("choices"))
    message = _mapping(choice.get("message"))
    usage = data.get("usage")
    return LiveAnswer(
        status=200,
        text=_text(message.get("content")),
        finish=_text(choice.get("finish_reason")),
        usage=usage if isinstance(usage, dict) else None,
        models=(_text(data.get("model")),),
    )


def read_events(payloads: Iterable[bytes]) -> LiveAnswer:
    """Reads the data of a stream's events, in order."""
    events = [read_object(payload) or {} for payload in payloads if payload != b"[DONE]"]
    broken = next((event for event in events if event.get("error")), None)
    if broken is not None:
        code = _mapping(broken["error"]).get("code")
        known = code in set(FailureClass)
        return LiveAnswer(None, str(code) if known else "malformed")
    choices = [_first(event.get("choices")) for event in events]
    deltas = [_mapping(choice.get("delta")) for choice in choices]
    texts = [text for delta in deltas if (text := _text(delta.get("content")))]
    counted = [found for event in events if (found := _mapping(event.get("usage")))]
    named = [name for event in events if (name := _text(event.get("model")))]
    ends = [end for choice in choices if (end := _text(choice.get("finish_reason")))]
    return LiveAnswer(
        status=200,
        text="".join(texts),
        finish=ends[-1] if ends else "",
        usage=counted[-1] if counted else None,
        models=tuple(dict.fromkeys(named)),
        chunks=len(texts),
        usage_last=bool(counted) and isinstance(events[-1].get("usage"), dict),
    )


def _refusal(status: int, attempts: str, data: Mapping[str, object]) -> LiveAnswer:
    error = _mapping(data.get("error"))
    last = _first(list(reversed(_list(error.get("attempts")))))
    if last and last.get("failure") in set(FailureClass):
        said = last.get("status")
        return LiveAnswer(said if isinstance(said, int) else None, str(last["failure"]))
    # The provider's own words and status are what a client's mistake is answered with.
    ours = attempts in ("", "0")
    return LiveAnswer(status, _OURS if ours else FailureClass.BAD_REQUEST.value)


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _first(value: object) -> dict[str, object]:
    return _mapping(next(iter(_list(value)), None))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
