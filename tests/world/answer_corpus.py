"""Published answers and streams of providers, and how the product reads each:
`answers/*.yaml`.

An entry has the provider's `body`, or the `events` of its stream, and its source. Texts, ids
and numbers are short and made up; the start and the end of a stream are the provider's usual
ones where its page shows a part. Without
`through`, it is in the protocol of its `endpoint`; `through` names the vendor whose protocol
the router translates into a chat. `right` is the reading: the outcome (`good`, `cut`,
`refused`, or the class of a failure), the text, the calls with their arguments, and the tokens
(input, output, read from the cache, written to it). Where the provider states its own cost,
`usd` is that cost, for the `price` in US dollars per million tokens (input, output, cached).

A chat is read in three ways, because clients of Messages and of Responses get it translated:
`native`, `messages`, `responses`. `passed_on` reads a good stream again, as the router sends
it to a client of its own protocol. The source decides what is right; `now` has the readings
that are wrong today, by way. Whoever mends the product deletes them.

`python -m tests.world.answer_corpus` prints the table; `--write` fills in `now`.
"""

import asyncio
import copy
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from harness.providers.models.capabilities import Endpoint, StrictSchema
from harness.providers.target import Price
from router.frame.body import read_request
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import parse_object
from router.protocols.answer_signals import AnswerSignals
from router.protocols.answers import TokenUsage
from router.protocols.endpoints import DIALECTS
from router.protocols.event_stream import StreamFilter
from router.upstream.endpoint_translation import TRANSLATIONS
from router.upstream.reply_reading import ReadReply
from router.upstream.translate.request_screening import screen_request
from router.upstream.translate.translation import REHEARSAL, Translation
from router.upstream.translate.transport import StreamReply, TranslatedReply, load_translation
from tests.wire.bedrock import framed

FOLDER: Final = Path(__file__).parent / "answers"
FILES: Final = tuple(sorted(FOLDER.glob("*.yaml")))
Json = dict[str, Any]
Reading = Mapping[str, Any]
_ASKS: Final[Mapping[Endpoint, Json]] = {
    Endpoint.CHAT: {"messages": [{"role": "user", "content": "q"}]},
    Endpoint.MESSAGES: {"messages": [{"role": "user", "content": "q"}], "max_tokens": 9},
    Endpoint.RESPONSES: {"input": "q"},
}
_BRIDGES: Final = (Endpoint.MESSAGES, Endpoint.RESPONSES)
_translation = cache(load_translation)


class Answer(NamedTuple):
    """One entry of a file."""

    provider: str
    entry: Json

    @property
    def name(self) -> str:
        return f"{self.provider}: {self.entry['name']}"

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.entry.get("endpoint", "chat"))

    @property
    def stream(self) -> bool:
        return "events" in self.entry

    def readings(self) -> Mapping[str, Reading]:
        """Returns the reading by way."""
        found = {"native": self._native()}
        if self.stream and "through" not in self.entry and found["native"].get("usage"):
            found["passed_on"] = self._passed_on()
        if self.endpoint is Endpoint.CHAT and "alone" not in self.entry:
            found |= {way.value: self._bridged(way) for way in _BRIDGES}
        return {way: {**reading, **self._cost(reading)} for way, reading in found.items()}

    def _cost(self, reading: Reading) -> Reading:
        if "price" not in self.entry or "usage" not in reading:
            return {}
        usd = Price(*self.entry["price"]).answer_usd(*reading["usage"])
        return {"usd": round(usd or 0, 10)}

    def wrong(self) -> Mapping[str, Reading]:
        """Returns the parts of the readings that are not right, by way."""
        right = self.entry["right"]
        found = {
            way: {
                name: value
                for name, value in reading.items()
                if name in right and value != right[name]
            }
            for way, reading in self.readings().items()
        }
        return {way: parts for way, parts in found.items() if parts}

    def _passed_on(self) -> Reading:
        """Reads a native stream as its client gets it from the router."""
        _, sent = _filtered(self.endpoint, self._own(), AnswerSignals(keeps=False))
        return read_answer(self.endpoint, sent, stream=True)

    def _native(self) -> Reading:
        try:
            data = self._chat() if "through" in self.entry else self._own()
            return read_answer(self.endpoint, data, stream=self.stream)
        except UpstreamFailed as failed:
            return {"outcome": failed.failure.value}

    def _bridged(self, way: Endpoint) -> Reading:
        ask = {"model": "m", "stream": self.stream, **_ASKS[way]}
        bridge = TRANSLATIONS[way](json.dumps(ask).encode(), "custom", "", StrictSchema.UNKNOWN)
        try:
            data = self._chat() if "through" in self.entry else self._own()
            if not self.stream:
                return read_answer(way, bridge.whole(parse_object(data)), stream=False)
            events = bridge.events()
            data = events.feed(data) + events.end()
            if events.failure is not None:
                raise events.failure
            return read_answer(way, data, stream=True)
        except UpstreamFailed as failed:
            return {"outcome": failed.failure.value}

    def _own(self) -> bytes:
        if not self.stream:
            return json.dumps(self.entry["body"]).encode()
        return b"".join(map(written_event, self.entry["events"]))

    def _chat(self) -> bytes:
        """Translates a vendor's answer into a chat. Raises UpstreamFailed."""
        kind = self.entry["through"]
        translation: Translation = _translation(kind)
        ask = translation.ask(
            screen_request(copy.deepcopy(REHEARSAL), kind), stream=self.stream
        )
        if not self.stream:
            given = json.dumps(self.entry["body"]).encode()
            whole = ReadReply(200, [], given)
            return asyncio.run(
                TranslatedReply(whole, partial(translation.answer, ask), ()).body()
            )
        write = _framed if kind == "bedrock" else written_event
        given = b"".join(map(write, self.entry["events"]))
        reply = StreamReply(ReadReply(200, [], given), translation.chunks(ask), ())
        return asyncio.run(reply.body())


def _framed(event: Json) -> bytes:
    """Writes an event of Bedrock's stream: one member, by the name of its kind."""
    [(kind, payload)] = event.items()
    return framed(kind, payload, "exception" if kind.endswith("Exception") else "event")


def written_event(event: Json | str) -> bytes:
    """Writes an event of a stream.

    Args:
        event: its data, or its lines as text.
    """
    if isinstance(event, str):
        return f"{event}\n\n".encode()
    kind = f"event: {event['type']}\n" if isinstance(event.get("type"), str) else ""
    return f"{kind}data: {json.dumps(event)}\n\n".encode()


def read_answer(endpoint: Endpoint, data: bytes, *, stream: bool) -> Reading:
    """Reads an answer in the client's protocol, as the router judges it."""
    dialect = DIALECTS[endpoint]
    signals = AnswerSignals(keeps=True)
    usage: TokenUsage | None
    if stream:
        events, _ = _filtered(endpoint, data, signals)
        if events.failure:
            failure = events.failure_class
            return {"outcome": failure.value if failure else "", **_texts(signals)}
        usage = events.used()
    else:
        members = parse_object(data)
        usage = dialect.checked(members)
        dialect.note_signals(signals, members)
    outcome = "cut" if signals.truncated else "good"
    return {
        "outcome": "refused" if signals.refused else outcome,
        **_texts(signals),
        "usage": list((usage or TokenUsage(0, 0))[:4]),
    }


def _filtered(
    endpoint: Endpoint, data: bytes, signals: AnswerSignals
) -> tuple[StreamFilter, bytes]:
    """Filters a stream. Returns the filter, and what the client gets."""
    ask = json.dumps({"model": "m", "stream": True, "stream_options": _USAGE})
    events = DIALECTS[endpoint].stream(read_request(ask.encode(), endpoint), None)
    events.listen(lambda: signals)
    sent = events.feed(data)
    if not events.failure:
        sent += events.end()
    return events, sent


_USAGE: Final = {"include_usage": True}


def _texts(signals: AnswerSignals) -> Reading:
    return {
        "text": "".join(signals.texts()),
        "calls": [[call.name, _arguments(call.arguments)] for call in signals.calls],
    }


def _arguments(arguments: object) -> object:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


def read_corpus(files: Sequence[Path] = FILES) -> Iterator[Answer]:
    """Yields the entries of all files."""
    for file in files:
        found = yaml.load(file.read_text("utf-8"), yaml.CSafeLoader)
        for entry in found["answers"]:
            yield Answer(found["provider"], entry)


_ORDER: Final = (
    "source",
    "endpoint",
    "through",
    "alone",
    "price",
    "body",
    "events",
    "right",
    "now",
)


def _lines(found: Json) -> Iterable[str]:
    yield f"provider: {found['provider']}"
    yield "answers:"
    for entry in found["answers"]:
        yield f"- name: {json.dumps(entry['name'], ensure_ascii=False)}"
        for name in _ORDER:
            if name not in entry:
                continue
            if name == "events":
                yield "  events:"
                for event in entry["events"]:
                    yield f"  - {json.dumps(event, ensure_ascii=False)}"
            else:
                yield f"  {name}: {json.dumps(entry[name], ensure_ascii=False)}"
    yield ""


def write_files() -> None:
    """Fills in `now`, and writes the files in one form."""
    for file in FILES:
        found = yaml.load(file.read_text("utf-8"), yaml.CSafeLoader)
        for entry in found["answers"]:
            entry.pop("now", None)
            if wrong := Answer(found["provider"], entry).wrong():
                entry["now"] = wrong
        file.write_text("\n".join(_lines(found)), "utf-8")


def table() -> Iterator[str]:
    """Yields the entries and the wrong ones by provider, and then each wrong one."""
    entries = list(read_corpus())
    yield f"{'provider':<14}{'entries':>8}{'wrong':>7}"
    for provider in sorted({e.provider for e in entries}):
        own = [e for e in entries if e.provider == provider]
        yield f"{provider:<14}{len(own):>8}{sum('now' in e.entry for e in own):>7}"
    yield f"{'all':<14}{len(entries):>8}{sum('now' in e.entry for e in entries):>7}\n"
    for e in entries:
        if "now" in e.entry:
            yield f"{e.name}\n  now {e.entry['now']}; right {e.entry['right']}"


if __name__ == "__main__":
    if "--write" in sys.argv:
        write_files()
    sys.stdout.write("\n".join(table()) + "\n")
