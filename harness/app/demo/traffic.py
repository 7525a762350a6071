"""Sends the demo's traffic: the official openai client proves compatibility, and a light
generator gives volume. An error, an empty answer or an incomplete stream counts as a failed
request. Sends requests of simulated callers for `swapproof sim traffic`, and reports results.

The traffic reaches Swapproof only through the router's public API, with a client key.
"""

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import aiohttp
from openai import AsyncOpenAI, OpenAI, OpenAIError

from harness.canary.status import list_canaries
from harness.frame.errors import CallFailed, InputError, SwapproofError
from harness.frame.formatting import format_bps, format_count, format_harm
from harness.frame.runtime.supervisor import interrupts
from harness.operations import queries
from harness.operations.context import Context
from harness.proposals import evaluation
from harness.routing.control import routes as routing
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.table import FIRST_ROUTE_STEP

TIMEOUT_S = 60.0
# The greatest numbers of unanswered requests: of the generator in all, and of the official
# client per route. The client needs so much CPU time that on a busy machine none would be left
# for the generator.
MAX_IN_FLIGHT = 200
MAX_SDK_IN_FLIGHT = 2
MAX_KEPT_FAILURES = 100
QUESTIONS = (
    "Where is my parcel?",
    "How do I change my e-mail address?",
    "I was charged twice this month.",
    "The page stays blank after I log in.",
)
# A user's pause between an answer and the next question.
PAUSE_S = 1.0
# A conversation: questions and answers in turn, the newest question last.
Messages = Sequence[Mapping[str, str]]
# Sends a user's request to a route. Arguments: the route's name, the user's number and the
# conversation. Returns the answer's text. Raises the client's error.
Ask = Callable[[str, int, Messages], Awaitable[str]]


@dataclass
class TrafficCounts:
    """Results of the requests. answered: by client. failures: texts of the first failures."""

    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    failed: int = 0

    @property
    def total(self) -> int:
        return sum(self.answered.values()) + self.failed

    def note_failure(
        self,
        client: str,
        route: str,
        reason: str,
    ) -> None:
        """Counts a failed request. Keeps only the first texts, because traffic may run for
        days.
        """
        self.failed += 1
        if len(self.failures) < MAX_KEPT_FAILURES:
            self.failures.append(f"{client} on {route}: {reason}")


@dataclass(frozen=True, slots=True)
class DemoUser:
    """A simulated user. free: limits the concurrent requests of the user's client."""

    client: str
    route: str
    number: int
    free: asyncio.Semaphore


@dataclass
class DemoTraffic:
    """Sends requests from a separate thread, at the rates of the routes."""

    base_url: str  # ends in /v1
    key: str
    # Requests per second, by route; callers may change it while the traffic runs.
    rates: dict[str, float]
    # Requests of each user, by route; 1 for a route that is not here.
    turns: dict[str, int] = field(default_factory=dict)
    tally: TrafficCounts = field(default_factory=TrafficCounts)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self, *, sdk_rate: float = 0.0) -> None:
        """Starts the requests.

        Args:
            sdk_rate: the official client's requests per second in all.
        """
        self._stop.clear()
        run = self._send_all
        self._thread = threading.Thread(target=lambda: asyncio.run(run(sdk_rate)), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Sends no more requests. Waits for the answers of running requests, at most
        `TIMEOUT_S`.
        """
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=TIMEOUT_S)

    async def _send_all(self, sdk_rate: float) -> None:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                connector=aiohttp.TCPConnector(limit=MAX_IN_FLIGHT),
                headers={"Authorization": f"Bearer {self.key}"},
            ) as session,
            # max_retries=0, because the demo counts the result of the first attempt.
            AsyncOpenAI(base_url=self.base_url, api_key=self.key, max_retries=0) as client,
            asyncio.TaskGroup() as tasks,
        ):
            ask_by_http = partial(_ask_by_http, session, f"{self.base_url}/chat/completions")
            ask_by_client = partial(_ask_by_client, client)

            async def start_users(
                name: str,
                route: str,
                send_request: Ask,
                free: asyncio.Semaphore,
                share: float = 0.0,
            ) -> None:
                """Starts new users without waiting for answers (an open loop), by default at
                the route's rate of requests. After a delay, catches up with at most half a
                second.
                """
                due = time.monotonic()
                for number in itertools.count():
                    per_s = (share or self.rates[route]) / self.turns.get(route, 1)
                    due = max(due + 1 / per_s, time.monotonic() - 0.5)
                    if (wait_s := due - time.monotonic()) > 0:
                        await asyncio.sleep(wait_s)
                    await free.acquire()
                    if self._stop.is_set():
                        return
                    user = DemoUser(name, route, number, free)
                    tasks.create_task(self._run_conversation(user, send_request))

            generator_limit = asyncio.Semaphore(MAX_IN_FLIGHT)
            for route in self.rates:
                tasks.create_task(start_users("generator", route, ask_by_http, generator_limit))
                if sdk_rate:
                    sdk_limit = asyncio.Semaphore(MAX_SDK_IN_FLIGHT)
                    share = sdk_rate / len(self.rates)
                    tasks.create_task(
                        start_users("openai", route, ask_by_client, sdk_limit, share)
                    )

    async def _run_conversation(self, user: "DemoUser", send_request: Ask) -> None:
        """Sends the requests of one user, each with all earlier turns; ends at a failure."""
        messages: list[Mapping[str, str]] = []
        for turn in range(self.turns.get(user.route, 1)):
            if turn:
                await asyncio.sleep(PAUSE_S)
                await user.free.acquire()
            content = QUESTIONS[(user.number + turn) % len(QUESTIONS)]
            messages.append({"role": "user", "content": content})
            try:
                answer = send_request(user.route, user.number, messages)
                text = await self._count_answer(user.client, user.route, answer)
            finally:
                user.free.release()
            if not text or self._stop.is_set():
                return
            messages.append({"role": "assistant", "content": text})

    async def _count_answer(
        self,
        client: str,
        route: str,
        answer: Awaitable[str],
    ) -> str:
        """Counts one request, and returns the answer's text; empty if it failed."""
        reason = "an empty answer"
        try:
            text = await answer
        except (
            OpenAIError,
            aiohttp.ClientError,
            TimeoutError,
            ValueError,
        ) as error:
            text = ""
            reason = f"{type(error).__name__}: {error}"[:200]
        if text:
            self.tally.answered[client] += 1
        else:
            self.tally.note_failure(client, route, reason)
        return text


async def _ask_by_http(
    session: aiohttp.ClientSession,
    url: str,
    route: str,
    number: int,
    messages: Messages,
) -> str:
    """Asks by a plain HTTP request. Raises ValueError for a status that is not 200."""
    body = {
        "model": route,
        "user": f"user-{route}-{number}",
        "messages": messages,
    }
    async with session.post(url, json=body) as answer:
        reply = await answer.json()
    if answer.status != 200:
        raise ValueError(f"{answer.status} {reply}")
    return str(reply["choices"][0]["message"]["content"] or "")


async def _ask_by_client(
    client: AsyncOpenAI,
    route: str,
    number: int,
    messages: Messages,
) -> str:
    """Asks by the official client, partly in a stream. Returns an empty text for an incomplete
    stream.
    """
    request: dict[str, Any] = {"model": route, "messages": messages}
    request["user"] = f"sdk-{route}-{number}"
    # No streams on this route: when its provider is killed, a stream that has begun must fail,
    # because the router does not join two models' texts.
    if route == "search" or number % 2:
        reply = await client.chat.completions.create(**request)
        return str(reply.choices[0].message.content or "")
    text = ""
    is_complete = False
    async for chunk in await client.chat.completions.create(**request, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            is_complete = is_complete or choice.finish_reason is not None
    return text if is_complete else ""


TASK: Final = "Give the customer of order A-1001 the money back."
# By tool: its arguments and its result, as in the models' script in models.yaml.
TOOLS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "find_order": (("order",), "The customer paid 42 EUR."),
    "refund": (("order", "eur"), "Done: receipt R-77."),
}
ANSWER: Final = "Order A-1001: 42 EUR went back, receipt R-77."
TOOL_DEFINITIONS: Final[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": "string"} for argument in arguments},
            },
        },
    }
    for name, (arguments, _) in TOOLS.items()
]
SWAP_TIMEOUT_S = 20.0


@dataclass
class DemoAgent:
    """An agent whose tool loop continues while its route's model changes. turns: the
    messages of the conversation. served: the model of each turn, as the router
    reported it.
    """

    base_url: str  # the router's address, with `/v1`
    key: str
    route: str
    say: Callable[[str], None]
    turns: list[Any] = field(default_factory=lambda: [{"role": "user", "content": TASK}])
    served: list[str] = field(default_factory=list)
    answer: str = ""

    def take_turn(self, model: str) -> None:
        """Waits until the route serves `model`, then takes one turn and runs the tools that it
        calls.

        Raises SwapproofError if the model does not serve within `SWAP_TIMEOUT_S`, or if the
        call fails.
        """
        with OpenAI(base_url=self.base_url, api_key=self.key, max_retries=0) as client:
            deadline = time.monotonic() + SWAP_TIMEOUT_S
            question = [{"role": "user", "content": "Who are you?"}]
            while self._send(client, "visitor", question)[0] != model:
                if time.monotonic() > deadline:
                    raise SwapproofError(f"{self.route} is not served by {model}")
                time.sleep(0.1)
            served, message = self._send(
                client,
                "agent",
                self.turns,
            )
        self.served.append(served)
        self.turns.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls or ():
            name = call.function.name
            arguments = json.loads(call.function.arguments)
            arguments_text = ", ".join(f"{key}={value}" for key, value in arguments.items())
            self.say(f"agent on {self.route}: {served} calls {name}({arguments_text})")
            result = {
                "role": "tool",
                "tool_call_id": call.id,
                "content": TOOLS[name][1],
            }
            self.turns.append(result)
        if not message.tool_calls:
            self.answer = message.content or ""
            self.say(f"agent on {self.route}: {served} answers: {self.answer}")

    def _send(
        self,
        client: OpenAI,
        user: str,
        turns: Any,
    ) -> tuple[str, Any]:
        try:
            raw = client.chat.completions.with_raw_response.create(
                model=self.route,
                messages=turns,
                tools=TOOL_DEFINITIONS,
                user=user,
            )
        except OpenAIError as error:
            raise SwapproofError(f"the agent on {self.route} got no answer: {error}") from None
        return raw.headers["x-swapproof-target"], raw.parse().choices[0].message

    def has_survived(self, *models: str) -> bool:
        """Returns whether these models served in this order, and whether the last answer is
        right. A right answer needs the tool results of the earlier turns.
        """
        return (self.served, self.answer) == ([*models], ANSWER)


REPORT_EVERY_S = 5.0
CHECK_EVERY_S = 0.5
# The traffic ends if all requests fail for this time, because the address or the key is
# probably wrong. A router needs a moment to accept a new key.
GIVE_UP_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class TrafficResult:
    """The result of `send_traffic`. failed: requests without a whole answer."""

    requests: int
    failed: int
    # Whether all open proposals of the routes ended, if the caller waits for them. A proposal
    # that waits for an approval has not ended.
    settled: bool


def send_traffic(  # noqa: PLR0913 - what the command's options say
    ctx: Context,
    url: str,
    key: str,
    *,
    routes: Sequence[str],
    rate: float,
    seconds: float | None,
    until_settled: bool,
    say: Callable[[str], None],
) -> TrafficResult:
    """Sends requests until Ctrl-C, the time limit, or the end of the routes' proposals.

    Args:
        url: the router's address, without `/v1`.
        routes: if empty, all routes of the table.
        seconds: the time limit; None for no limit.

    Raises NotFound for an unknown route, InputError without a route or (with until_settled)
    without an open proposal, and CallFailed if no request gets an answer.
    """
    route_names = _find_routes(ctx, routes)
    watch = ProposalWatch(ctx, route_names)
    if until_settled and not watch.open:
        raise InputError(
            f"no proposal is open on {', '.join(route_names)}, so there is nothing to wait "
            f"for: create one with `swapproof proposal create {route_names[0]} MODEL --reason "
            "WHY`"
        )
    traffic = DemoTraffic(
        f"{url.rstrip('/').removesuffix('/v1')}/v1", key, dict.fromkeys(route_names, rate)
    )
    description = f"{', '.join(route_names)} at {traffic.base_url}"
    say(f"{rate:g} requests per second to {description}; Ctrl-C ends them")
    began_at = reported_at = time.monotonic()
    traffic.start()
    try:
        with interrupts() as interruption:
            while not (interruption.ended or (until_settled and watch.is_settled)):
                time.sleep(CHECK_EVERY_S)
                elapsed = time.monotonic() - began_at
                if seconds is not None and elapsed >= seconds:
                    break
                if elapsed >= GIVE_UP_AFTER_S:
                    _require_answers(traffic)
                for line in watch.refresh():
                    say(line)
                if began_at + elapsed - reported_at >= REPORT_EVERY_S:
                    reported_at = began_at + elapsed
                    say(_format_progress(traffic, watch, elapsed))
    finally:
        traffic.stop()
    say(_format_counts(traffic))
    if interruption.ended and until_settled:
        raise KeyboardInterrupt
    if until_settled:
        for line in watch.list_approvals():
            say(line)
    _require_answers(traffic)
    has_settled = not (until_settled and watch.open)
    return TrafficResult(traffic.tally.total, traffic.tally.failed, has_settled)


def _find_routes(ctx: Context, names: Sequence[str]) -> list[str]:
    with ctx.store.read() as tx:
        route_names = [routing.require_route(tx, name).name for name in names]
        route_names = route_names or sorted(Routing(tx).table().routes)
    if not route_names:
        raise InputError(f"there is no route to send requests to: {FIRST_ROUTE_STEP}")
    return list(dict.fromkeys(route_names))


def _require_answers(traffic: DemoTraffic) -> None:
    """Raises CallFailed if every request has failed."""
    tally = traffic.tally
    if tally.failed and tally.failed == tally.total:
        raise CallFailed(
            f"none of {tally.total} requests was answered, so the traffic ends. The first: "
            f"{tally.failures[0]}. Check that the router runs at {traffic.base_url}, and that "
            "the key may use the route"
        )


def _format_progress(
    traffic: DemoTraffic,
    watch: "ProposalWatch",
    elapsed: float,
) -> str:
    parts = [_format_counts(traffic), *watch.texts()]
    return f"{format_count(elapsed):>5} s  {' · '.join(parts)}"


def _format_counts(traffic: DemoTraffic) -> str:
    return f"{traffic.tally.total:,} requests, {traffic.tally.failed:,} failed"


@dataclass
class ProposalWatch:
    """Follows the open proposals of some routes, and describes them for a terminal."""

    ctx: Context
    routes: Sequence[str]
    open: dict[str, str] = field(default_factory=dict)  # route to its proposal

    def __post_init__(self) -> None:
        self._find_new_proposals()

    def _find_new_proposals(self) -> None:
        with self.ctx.store.read() as tx:
            for proposal in Proposals(tx).open():
                if proposal.route in self.routes:
                    self.open[proposal.route] = proposal.id

    def refresh(self) -> list[str]:
        """Reads the proposals again. Returns a line for each proposal that has ended since the
        last call.
        """
        lines = []
        for route, proposal in self.proposals.items():
            if not proposal.open:
                del self.open[route]
                name = queries.find_target(self.ctx, proposal.candidate).name
                phase = proposal.phase_text
                lines.append(f"{route}: {name} is {phase}: {proposal.closed_because}")
        self._find_new_proposals()
        return lines

    @property
    def is_settled(self) -> bool:
        """Returns whether all proposals have ended or wait for a person's approval."""
        return all(p.phase is ProposalPhase.AWAITING_APPROVAL for p in self.proposals.values())

    def list_approvals(self) -> list[str]:
        """Lists the commands by which a person approves the waiting proposals."""
        return [
            f"{route}: waits for {describe_approver(proposal)}: `swapproof proposal approve "
            f"{proposal.id}`, or the page Proposals; then send traffic again"
            for route, proposal in sorted(self.proposals.items())
            if proposal.phase is ProposalPhase.AWAITING_APPROVAL
        ]

    @property
    def proposals(self) -> dict[str, Proposal]:
        with self.ctx.store.read() as tx:
            return {route: Proposals(tx).get(id_) for route, id_ in self.open.items()}

    def texts(self) -> list[str]:
        return [
            f"{route}: {self._describe_progress(proposal)}"
            for route, proposal in sorted(self.proposals.items())
        ]

    def _describe_progress(self, proposal: Proposal) -> str:
        if proposal.phase is ProposalPhase.EVALUATING:
            with self.ctx.store.read() as tx:
                done_answers, most_answers = evaluation.count_answers(tx, proposal)
            return f"evals: {done_answers} of at most {most_answers} answers"
        if proposal.phase is ProposalPhase.CANARY:
            for canary in list_canaries(self.ctx, route=proposal.route)[:1]:
                step = canary.rollout.current
                action = canary.action
                return (
                    f"canary at {format_bps(step.weight_bps)}: {action.step_exposures} of "
                    f"{step.min_exposures} callers, evidence of harm "
                    f"{format_harm(action.distance_to_trip)}"
                )
        return proposal.phase_text


def describe_approver(proposal: Proposal) -> str:
    return "an approver" + ("" if proposal.self_approval else " other than its proposer")
