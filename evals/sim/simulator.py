"""The simulator serves a whole request: it parses it, draws a fault, lets the named model
answer, and sends that at the model's pace. It counts requests, streams, items and faults by
model.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from evals.sim import answer_text, simulated_judge, text_numbers, tool_calls
from evals.sim.fake_json import make_up
from evals.sim.faults import MID_ANSWER, Fault, FaultBook, FaultKind, replace_answer
from evals.sim.item_bank import ItemBank
from evals.sim.profiles import Profile, find_line
from evals.sim.protocols import chat_completions, embeddings, requests
from evals.sim.protocols.chat_completions import Completion
from evals.sim.protocols.endpoints import CHAT, EndpointDialect
from evals.sim.protocols.http_exchange import ClientGone, HttpExchange, encoded
from evals.sim.protocols.requests import ChatRequest
from evals.sim.simulated_model import SimulatedAnswer, SimulatedModel, build_models

OVERLOADED = (503, "This error in mid-answer is simulated.", "overloaded", None)
JSON, SSE = "application/json", "text/event-stream; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class StreamPace:
    """Holds waiting times in seconds, already scaled: 0 for none."""

    first_token_s: float = 0.0
    generation_s: float = 0.0


@dataclass(slots=True)
class Stats:
    """What a model has been asked."""

    requests: int = 0
    streams: int = 0
    items: int = 0
    client_gone: int = 0  # clients seen leaving before the end
    faults: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "faults": dict(self.faults)}


class Simulator:
    """Holds the state of one server. models: profiles by the name that clients use.

    time_scale: factor on all latencies of the profiles, 0 for none (a fault's `delay_s` is
    not scaled). unix_time: whole seconds, for `created`.
    """

    def __init__(
        self,
        models: Mapping[str, Profile],
        bank: ItemBank,
        *,
        unix_time: Callable[[], int],
        time_scale: float = 1.0,
    ) -> None:
        self.bank = bank
        self.models: dict[str, SimulatedModel] = build_models(models, bank)
        self.faults = FaultBook()
        self.stats: dict[str, Stats] = {}
        self._unix_time = unix_time
        self._time_scale = time_scale
        self._numbers = itertools.count(1)
        self._asked: Counter[str] = Counter()

    def set_profile(self, model: str, profile: Profile) -> None:
        """Puts another profile behind the model's name: what drift looks like."""
        self.models[model] = SimulatedModel(profile, self.bank)

    def catalogue(self) -> list[dict[str, Any]]:
        return [self.described(name) for name in self.models]

    def described(self, name: str) -> dict[str, Any]:
        """A model as `GET /v1/models` shows it. Raises Refused (404)."""
        price = self._examinee(name).profile.price
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "simulated",
            "pricing": {
                "input_usd_per_mtok": price.input_usd_per_mtok,
                "output_usd_per_mtok": price.output_usd_per_mtok,
            },
        }

    async def answer(self, exchange: HttpExchange, dialect: EndpointDialect) -> None:
        """Answers a request at any endpoint that answers in words. Raises Refused,
        ClientGone.
        """
        data = requests.decoded(await exchange.body())
        name = requests.model_name(data)
        examinee = self._examinee(name)
        request = dialect.parse(data)
        number = self._count(name)
        stats = self.stats[name]
        stats.streams += request.stream
        try:
            fault = self._draw(name)
            if fault and await replace_answer(exchange, fault, name, dialect):
                return
            answer = self._complete(request, examinee, stats)
            pace = self._pace(examinee.profile, number, answer.completion_tokens)
            if request.stream:
                await send_stream(exchange, answer, request, pace, fault, dialect)
            else:
                await send_whole(exchange, dialect.body(answer), pace, fault, dialect)
        except ClientGone:
            stats.client_gone += 1
            raise

    async def embed(self, exchange: HttpExchange) -> None:
        """Answers `POST /v1/embeddings`: every model embeds, all alike. Raises Refused,
        ClientGone.
        """
        data = requests.decoded(await exchange.body())
        name = requests.model_name(data)
        examinee = self._examinee(name)
        answer = embeddings.response(data, model=examinee.profile.serves or name)
        number = self._count(name)
        fault = self._draw(name)
        if fault and await replace_answer(exchange, fault, name, CHAT):
            return
        pace = self._pace(examinee.profile, number, 0)
        await send_whole(exchange, answer, pace, fault, CHAT)

    def _examinee(self, name: str) -> SimulatedModel:
        examinee = self.models.get(name)
        if examinee is None:
            raise requests.no_such_model(name)
        return examinee

    def _count(self, name: str) -> int:
        """The request's number among its model's, from 0; the statistics may be reset."""
        self.stats.setdefault(name, Stats()).requests += 1
        self._asked[name] += 1
        return self._asked[name] - 1

    def _draw(self, name: str) -> Fault | None:
        if fault := self.faults.draw(name):
            self.stats[name].faults[fault.kind] += 1
        return fault

    def _complete(
        self, request: ChatRequest, examinee: SimulatedModel, stats: Stats
    ) -> Completion:
        line = find_line(examinee.profile.script, request.texts, request.tools)
        judgement = (
            line.text if line else simulated_judge.answer(request.prompt, examinee.profile)
        )
        item = None if line or judgement else self.bank.find(request.prompt)
        stats.items += item is not None
        verdict = examinee.sit(item, request_seed=request.seed) if item else None
        call = tool_calls.call_for(request, verdict, line)
        text, finish_reason = "", "tool_calls"
        if call is None:
            words = (
                _in_words(request, verdict, examinee.profile)
                if verdict
                else judgement or _unknown(request, examinee.profile)
            )
            text, finish_reason = chat_completions.limited(request, words)
        written = text if call is None else call.name + call.arguments
        return Completion(
            id=f"chatcmpl-sim-{next(self._numbers):08x}",
            created=self._unix_time(),
            model=examinee.profile.serves or request.model,
            fingerprint=examinee.fingerprint,
            text=text,
            call=call,
            finish_reason=finish_reason,
            prompt_tokens=text_numbers.count_message_tokens(request.texts),
            completion_tokens=text_numbers.count_tokens(written),
        )

    def _pace(self, profile: Profile, number: int, answer_tokens: int) -> StreamPace:
        if self._time_scale == 0:
            return StreamPace()
        z = text_numbers.normal("latency", profile.seed, number)
        return StreamPace(
            first_token_s=self._time_scale * profile.latency.first_token_s(z),
            generation_s=self._time_scale * profile.latency.generation_s(answer_tokens),
        )


def _in_words(request: ChatRequest, verdict: SimulatedAnswer, profile: Profile) -> str:
    return answer_text.answer(
        verdict,
        profile,
        prompt=request.prompt,
        json_asked=request.json_asked,
        form_asked=answer_text.insists_on_form(request.system),
    )


def _unknown(request: ChatRequest, profile: Profile) -> str:
    """The answer to a prompt that is no item: of the form that the request asks for."""
    if request.schema is None:
        return answer_text.filler(request.prompt)
    return answer_text.bare(make_up(request.schema, (profile.seed, request.prompt)))


async def send_whole(
    exchange: HttpExchange,
    answer: object,
    pace: StreamPace,
    fault: Fault | None,
    dialect: EndpointDialect,
) -> None:
    """An answer in one piece. A fault in mid-answer cuts it after half of its bytes."""
    await exchange.pause(pace.first_token_s + pace.generation_s)
    data = encoded(answer)
    if fault is None or fault.kind not in MID_ANSWER:
        await exchange.whole(200, data, _content_type(fault, JSON))
        return
    if fault.kind is FaultKind.ERROR_IN_STREAM:
        await exchange.json(200, dialect.error(*OVERLOADED))
        return
    await exchange.start(200, JSON)
    half = len(data) // 2 if fault.after_chunks or fault.role_first else 0
    if half:
        await exchange.write(data[:half])
    if await _survives(exchange, fault, dialect):
        await exchange.write(data[half:], last=True)


async def send_stream(
    exchange: HttpExchange,
    answer: Completion,
    request: ChatRequest,
    pace: StreamPace,
    fault: Fault | None,
    dialect: EndpointDialect,
) -> None:
    """An answer as server-sent events: opening, content, finish. A fault strikes before one."""
    opening, pieces, finish = dialect.stream(answer, request)
    struck = fault if fault and fault.kind in MID_ANSWER else None
    at = -1
    if struck:
        before_all = struck.after_chunks == 0 and not struck.role_first
        at = 0 if before_all else 1 + min(struck.after_chunks, len(pieces))
        opening = (dialect.ping if struck.role_first else b"") + opening
    await exchange.pause(pace.first_token_s)
    await exchange.start(200, _content_type(fault, SSE))
    for n, frame in enumerate((opening, *pieces, finish)):
        if struck and n == at and not await _survives(exchange, struck, dialect):
            return
        if 0 < n <= len(pieces):
            await exchange.pause(pace.generation_s / len(pieces))
        await exchange.write(frame, last=n > len(pieces))


async def _survives(exchange: HttpExchange, fault: Fault, dialect: EndpointDialect) -> bool:
    """Lets the fault strike here; tells whether the answer may go on: only after a stall."""
    match fault.kind:
        case FaultKind.STALL:
            await exchange.pause(fault.delay_s)
            return True
        case FaultKind.RESET | FaultKind.CLOSE:
            await exchange.break_off(reset=fault.kind is FaultKind.RESET)
        case FaultKind.ERROR_IN_STREAM:
            error = dialect.error(*OVERLOADED)
            await exchange.write(dialect.error_event(error), last=True)
        case _:
            await exchange.write(b"", last=True)
    return False


def _content_type(fault: Fault | None, right: str) -> str:
    return PLAIN if fault and fault.kind is FaultKind.WRONG_CONTENT_TYPE else right
