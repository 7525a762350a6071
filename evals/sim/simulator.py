"""The simulator serves requests: it draws a fault, and sends the model's answer at its pace.

It counts requests and faults by model. It has no state of conversations: each request contains
everything that its answer depends on, apart from faults and pace.
"""

import base64
import itertools
import math
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect

from evals.sim import answers, chat_completions, simulated_model
from evals.sim.chat_completions import (
    CHAT,
    ChatRequest,
    Completion,
    EndpointDialect,
    Refused,
    encode,
    invalid,
)
from evals.sim.faults import (
    MID_ANSWER,
    Fault,
    FaultBook,
    FaultKind,
    HttpExchange,
    replace_answer,
)
from evals.sim.messages import MESSAGES
from evals.sim.profiles import Profile, find_line
from evals.sim.responses import RESPONSES
from evals.sim.simulated_model import ItemBank, SimulatedModel
from harness.providers.target import Price

DIALECTS: Mapping[str, EndpointDialect] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
}
OVERLOADED = Refused(503, "This error in mid-answer is simulated.", "overloaded")


class EncodedAnswer(NamedTuple):
    """An answer as bytes. frames: events of a stream, or the whole body as one frame."""

    frames: Sequence[bytes]
    streamed: bool = False
    tokens: int = 0


@dataclass(slots=True)
class Stats:
    """Counts of one model's requests. faults: by kind. tools: offered tools by type."""

    requests: int = 0
    client_gone: int = 0  # clients that left before the end
    faults: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "faults": dict(self.faults), "tools": dict(self.tools)}


class Simulator:
    """The state of one server. models: profiles by the model's name.

    time_scale: factor on the profiles' latencies, 0 for none; a fault's `delay_s` stays.
    """

    def __init__(
        self,
        models: Mapping[str, Profile],
        bank: ItemBank,
        *,
        time_scale: float = 1.0,
    ) -> None:
        self.bank = bank
        self.models = {name: SimulatedModel(profile, bank) for name, profile in models.items()}
        self.faults = FaultBook()
        self.stats: dict[str, Stats] = {}
        self._time_scale = time_scale
        self._numbers = itertools.count(1)

    def set_profile(self, model: str, profile: Profile) -> None:
        """Changes the model behind a name, to simulate drift."""
        self.models[model] = SimulatedModel(profile, self.bank)

    def catalogue(self) -> dict[str, Any]:
        """Lists the models with prices, as `GET /v1/models` answers."""
        model_fields = {
            "object": "model",
            "created": 0,
            "owned_by": "simulated",
        }
        models = [
            {
                "id": name,
                **model_fields,
                "pricing": _list_prices(model.profile.price),
            }
            for name, model in self.models.items()
        ]
        return {"object": "list", "data": models}

    async def answer(self, exchange: HttpExchange, dialect: EndpointDialect) -> None:
        """Answers a chat, message or response. Raises Refused, ClientDisconnect."""
        data = chat_completions.decoded(await exchange.body())
        name = chat_completions.model_name(data)
        model = self.model(name)
        self.stats.setdefault(name, Stats()).tools.update(_list_tool_types(data))
        request = dialect.parse(data)

        def write_answer() -> EncodedAnswer:
            answer = self._complete(request, model)
            frames = dialect.stream(answer, request) if request.stream else None
            tokens = answer.completion_tokens
            return EncodedAnswer(
                frames or [encode(dialect.body(answer))],
                bool(frames),
                tokens,
            )

        await self._serve(exchange, dialect, (name, request.turn_number), write_answer)

    async def embed(self, exchange: HttpExchange) -> None:
        """Answers embeddings, the same for all models. Raises Refused, ClientDisconnect."""
        data = chat_completions.decoded(await exchange.body())
        name = chat_completions.model_name(data)
        body = embeddings_body(data, model=self.model(name).profile.serves or name)
        await self._serve(exchange, CHAT, (name, 1), lambda: EncodedAnswer([encode(body)]))

    def model(self, name: str) -> SimulatedModel:
        if name not in self.models:
            raise chat_completions.no_such_model(name)
        return self.models[name]

    async def _serve(
        self,
        exchange: HttpExchange,
        dialect: EndpointDialect,
        request: tuple[str, int],
        write_answer: Callable[[], EncodedAnswer],
    ) -> None:
        """Counts the request, and sends its answer or its fault. Raises ClientDisconnect.

        Args:
            request: the model's name, and the conversation's turn.
        """
        name, turn = request
        stats = self.stats.setdefault(name, Stats())
        stats.requests += 1
        if fault := self.faults.draw(name, turn):
            stats.faults[fault.kind] += 1
        try:
            if fault and await replace_answer(exchange, fault, name, dialect):
                return
            answer = write_answer()
            profile = self.model(name).profile
            z = simulated_model.normal("latency", profile.seed, next(self._numbers))
            first_s = self._time_scale * profile.latency.first_token_s(z)
            rest_s = self._time_scale * profile.latency.generation_s(answer.tokens)
            await send(exchange, dialect, answer, (first_s, rest_s), fault)
        except ClientDisconnect:
            stats.client_gone += 1
            raise

    def _complete(self, request: ChatRequest, model: SimulatedModel) -> Completion:
        """Writes the model's answer to a request.

        The first match decides: a line of the script, a judge's prompt, an item of the bank,
        the results of tools, a schema. Without a match, the answer is filler. A limit cuts the
        text off.
        """
        profile = model.profile
        prompt = request.prompt
        line = find_line(profile.script, request.texts, request.schemas)
        fixed_text = line.text if line else answers.answer_as_judge(prompt, profile)
        item = None if line or fixed_text else self.bank.find(prompt)
        verdict = model.sit(item, request_seed=request.seed or 0) if item else None
        calls = answers.calls_for(request, verdict, line)
        text = fixed_text or ""
        reason = "stop"
        schema = request.answer_schema
        if calls:
            text = ""
            reason = "tool_calls"
        elif verdict:
            text = answers.answer(
                verdict,
                profile,
                prompt=prompt,
                json_asked=schema is not None,
                form_asked=answers.insists_on_form(request.system),
            )
        elif not text and schema is None:
            results = request.tool_results
            text = answers.repeat_results(results) if results else answers.write_filler(prompt)
        elif not text:
            text = answers.write_json(answers.make_up(schema, (profile.seed, prompt)))
        if request.limit is not None and simulated_model.count_tokens(text) > request.limit:
            text = simulated_model.cut(text, request.limit)
            reason = "length"
        return Completion(
            id=f"chatcmpl-sim-{next(self._numbers):08x}",
            created=time.time_ns() // 1_000_000_000,
            model=profile.serves or request.model,
            fingerprint=model.fingerprint,
            text=text,
            calls=calls,
            finish_reason=reason,
            prompt_tokens=simulated_model.count_message_tokens(request.texts),
            completion_tokens=simulated_model.count_tokens(
                "".join(call.name + call.arguments for call in calls) or text
            ),
        )


async def send(
    exchange: HttpExchange,
    dialect: EndpointDialect,
    answer: EncodedAnswer,
    pace: tuple[float, float],
    fault: Fault | None,
) -> None:
    """Sends an answer in one piece, or as events: opening, content, finish.

    A fault strikes before one of the events, or cuts the piece after half of its bytes.

    Args:
        pace: seconds to the first token, and for all other tokens.
    """
    frames = [*answer.frames]
    first_s, rest_s = pace
    mid_fault = fault if fault and fault.kind in MID_ANSWER else None
    fault_index = -1
    if mid_fault and answer.streamed and mid_fault.role_first:
        frames[0] = dialect.ping + frames[0]
    if mid_fault and not answer.streamed:
        half = len(frames[0]) // 2
        frames = [frames[0][:half], frames[0][half:]]
    if mid_fault:
        fault_index = (
            0 if mid_fault.before_all else min(1 + mid_fault.after_chunks, len(frames) - 1)
        )
    await exchange.pause(first_s if answer.streamed else first_s + rest_s)
    if mid_fault and not answer.streamed and mid_fault.kind is FaultKind.ERROR_IN_STREAM:
        await exchange.reply(200, dialect.error(OVERLOADED))
        return
    length = None if answer.streamed or mid_fault else len(frames[0])
    kind = "text/event-stream; charset=utf-8" if answer.streamed else "application/json"
    if fault and fault.kind is FaultKind.WRONG_CONTENT_TYPE:
        kind = "text/plain; charset=utf-8"
    await exchange.start(200, kind, length=length)
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        if (
            mid_fault
            and index == fault_index
            and not await _apply_mid_answer(exchange, mid_fault, dialect)
        ):
            return
        if answer.streamed and 0 < index < last:
            await exchange.pause(rest_s / (last - 1))
        await exchange.write(frame, last=index == last)


async def _apply_mid_answer(
    exchange: HttpExchange,
    fault: Fault,
    dialect: EndpointDialect,
) -> bool:
    """Applies the fault. Returns whether the answer continues, which only a stall allows."""
    match fault.kind:
        case FaultKind.STALL:
            await exchange.pause(fault.delay_s)
            return True
        case FaultKind.RESET | FaultKind.CLOSE:
            await exchange.break_off(reset=fault.kind is FaultKind.RESET)
        case FaultKind.ERROR_IN_STREAM:
            event = dialect.error_event(dialect.error(OVERLOADED))
            await exchange.write(event, last=True)
        case _:
            await exchange.write(b"", last=True)
    return False


def _list_tool_types(data: Mapping[str, Any]) -> list[str]:
    """Lists the types of a request's tools, such as `function`."""
    tools = data.get("tools")
    return [
        str(tool.get("type") or "function")
        for tool in (tools if isinstance(tools, list) else ())
        if isinstance(tool, dict)
    ]


def _list_prices(price: Price) -> dict[str, str]:
    prices = {
        "prompt": price.input_usd_per_mtok,
        "completion": price.output_usd_per_mtok,
        "input_cache_read": price.cached_input_usd_per_mtok,
        "input_cache_write": price.cache_write_usd_per_mtok,
    }
    return {name: f"{usd / 1e6:.15f}" for name, usd in prices.items() if usd is not None}


DIMENSIONS = 256
MOST_DIMENSIONS = 4096


def vector(text: str, dimensions: int) -> list[float]:
    """Draws a unit vector from a text: equal texts have equal vectors, without any other
    meaning.
    """
    generator = random.Random(text)  # noqa: S311 - no secret
    numbers = [generator.gauss() for _ in range(dimensions)]
    length = math.hypot(*numbers)
    return [x / length for x in numbers]


def embeddings_body(data: Mapping[str, Any], *, model: str) -> dict[str, Any]:
    """Builds the body that answers `POST /v1/embeddings`. Raises Refused."""
    value = data.get("input")
    # Writes token numbers as the text of their digits.
    is_tokens = isinstance(value, list) and all(isinstance(token, int) for token in value)
    inputs = [value] if isinstance(value, str) or (value and is_tokens) else value
    if not isinstance(inputs, list) or not inputs:
        invalid(
            "'input' must be a text, a list of texts, or lists of tokens.",
            "input",
        )
    texts = [entry if isinstance(entry, str) else " ".join(map(str, entry)) for entry in inputs]
    size = DIMENSIONS if data.get("dimensions") is None else data["dimensions"]
    if not isinstance(size, int) or not 1 <= size <= MOST_DIMENSIONS:
        invalid(
            f"'dimensions' must be from 1 to {MOST_DIMENSIONS}.",
            "dimensions",
        )
    vectors: list[Any] = [vector(text, size) for text in texts]
    if data.get("encoding_format") == "base64":  # little-endian float32, as the API sends them
        packed = (struct.pack(f"<{size}f", *values) for values in vectors)
        vectors = [base64.b64encode(values).decode() for values in packed]
    count = sum(map(simulated_model.count_tokens, texts))
    rows = [
        {
            "object": "embedding",
            "index": index,
            "embedding": numbers,
        }
        for index, numbers in enumerate(vectors)
    ]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {
        "object": "list",
        "model": model,
        "data": rows,
        "usage": usage,
    }
