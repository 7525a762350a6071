"""The simulator serves a whole request: it parses it, draws a fault, lets the named model
answer, and sends that at the model's pace. It counts requests, streams, items and faults by
model.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from evals.sim import answer_text, seeded_random, simulated_judge, token_count, tool_calls
from evals.sim.fake_json import made_up
from evals.sim.fault_injection import replace_answer
from evals.sim.faults import Fault, FaultBook, FaultKind, hits
from evals.sim.item_bank import ItemBank
from evals.sim.profiles import Profile
from evals.sim.protocols import chat_completions, embeddings, requests
from evals.sim.protocols.chat_completions import Completion
from evals.sim.protocols.delivery import StreamPace, send_stream, send_whole
from evals.sim.protocols.dialect import EndpointDialect
from evals.sim.protocols.endpoints import CHAT
from evals.sim.protocols.http_exchange import ClientGone, HttpExchange
from evals.sim.protocols.requests import ChatRequest
from evals.sim.script import find_line
from evals.sim.simulated_model import SimulatedAnswer, SimulatedModel, build_models

NO_PACE = StreamPace(0.0, 0.0)


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
            fault = self._draw(name, examinee.profile, number)
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
        fault = self._draw(name, examinee.profile, number)
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

    def _draw(self, name: str, profile: Profile, number: int) -> Fault | None:
        seed = seeded_random.random_bits(0, name)
        fault = self.faults.draw(name, seed=seed)
        if (
            fault is None
            and profile.error_rate
            and hits(number, rate=profile.error_rate, seed=seed + 1)
        ):
            fault = Fault(FaultKind.STATUS, status=500)
        if fault:
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
            prompt_tokens=token_count.of_messages(request.texts),
            completion_tokens=token_count.estimate(written),
        )

    def _pace(self, profile: Profile, number: int, answer_tokens: int) -> StreamPace:
        if self._time_scale == 0:
            return NO_PACE
        z = seeded_random.normal("latency", profile.seed, number)
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
    return answer_text.bare(made_up(request.schema, (profile.seed, request.prompt)))
