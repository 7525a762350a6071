"""Keeps the answers of `/v1/responses` on routes with `responses_state`, and resolves
references to them before the request is planned (ADR 47).

The next request may reach another worker or router at once. So the history is in the database
before the client gets the end of its answer. Only requests to such routes come here, and only
those with references read the database. `router.conversation.kept_history` cuts the histories.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

from harness.frame.errors import InputError, StoreUnavailable
from harness.frame.plain_data import canonical_json
from harness.frame.ports import Clock
from harness.frame.sse import SseParser, event_data
from harness.providers.models.capabilities import Endpoint
from harness.routing.kept_responses import KeptPiece, format_state_time
from harness.routing.reliability.failover import hash_callers, hash_user
from harness.routing.table import KeyGrant, Route
from router.access.admission import Admission, AsideKind
from router.access.front_door import is_route_allowed
from router.conversation.kept_history import (
    PREVIOUS,
    CutHistory,
    HistoryItem,
    NotKept,
    cut_history,
    join_history,
    joined_body,
    list_pieces,
    list_references,
)
from router.frame.asgi import Message, Scope, Send
from router.frame.body import read_request
from router.frame.database import RouterDatabase
from router.frame.failure import SEND_WHOLE
from router.frame.replies import JSON, RETRY, Reply, error_reply
from router.observers.capture_head import is_copy_refused
from router.protocols.caller_names import body_callers, header_person
from router.request.client_directives import HeadPlan, caller_keys
from router.request.routed_response import RoutedResponse
from router.snapshot.compiled import CompiledSnapshot, RouteNames

log = logging.getLogger(__name__)

# The most bytes that one answer adds, and that all routes keep together.
MOST_ADDED_BYTES: Final = 16 * 1024 * 1024
MOST_BYTES: Final = 4 * 1024**3
# How long a request waits for the database, and for how long a sum of all sizes counts.
DATABASE_S: Final = 5.0
SUM_LASTS_S: Final = 30.0
# The most calls of the database at once.
AT_ONCE: Final = 4
# How long no answer is kept after the database did not answer.
REST_S: Final = 10.0
_USERS: Final = ("user:", "safety_identifier:")
_ENDS: Final = (b'"response.completed"', b'"response.incomplete"')
_ITEM: Final = b'"response.output_item.done"'
_T = TypeVar("_T")


class HistoryTooLong(Exception):
    """The history to which a request refers is larger than a request may be."""

    def __init__(self, size_bytes: int, max_bytes: int) -> None:
        super().__init__(
            f"the history to which this request refers has {size_bytes} bytes; the router "
            f"takes at most {max_bytes}: begin a new conversation, or summarize this one"
        )


@dataclass(frozen=True, slots=True)
class OpenedHistory:
    """A request whose answer may be kept. body: without references.

    references: the ids in the client's request. caller: see `KeptPiece`.
    """

    body: bytes
    history: Sequence[HistoryItem]
    references: Sequence[str]
    caller: str
    route: Route


class DatabaseThreads:
    """Calls the database in a few threads of its own. So a database that hangs takes no thread
    from the worker's other work, such as the look-up of a provider's address.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "kept-responses")
        self._free = asyncio.Semaphore(AT_ONCE)

    async def run(self, work: Callable[[], _T]) -> _T:
        """Returns the work's result. Raises its errors, and TimeoutError after DATABASE_S."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DATABASE_S):
            # Only a free thread gets work, so that waiting requests are not kept in memory.
            await self._free.acquire()
            future = self._threads.submit(work)
            future.add_done_callback(partial(self._release, loop))
            return await asyncio.wrap_future(future)

    def _release(self, loop: asyncio.AbstractEventLoop, _: Future[Any]) -> None:
        with suppress(RuntimeError):  # the worker has ended
            loop.call_soon_threadsafe(self._free.release)


class KeptResponses:
    """The histories that routes keep.

    secret: the installation's, for hashes of keys and users. max_body_bytes: of a request with
    its whole history.
    """

    def __init__(
        self,
        store: RouterDatabase,
        secret: bytes,
        clock: Clock,
        names: RouteNames,
        admission: Admission,
        counters: Counter[str],
        max_body_bytes: int,
    ) -> None:
        self._store = store
        self._threads = DatabaseThreads()
        self._admission = admission
        self._secret = secret
        self._clock = clock
        self._names = names
        self._counters = counters
        self._max_body_bytes = max_body_bytes
        self._stored_bytes = 0
        self._summed_until_s = 0.0
        self._rests_until_s = 0.0

    async def open(
        self,
        scope: Scope,
        body: bytes,
        head: HeadPlan,
        serving: CompiledSnapshot,
    ) -> OpenedHistory | Reply | None:
        """Resolves a request's references. Returns None if its route keeps no answers.

        The setting of the route that the client names applies, not the settings of its
        overrides. The endpoint handles a body that is invalid, or that continues a provider's
        conversation.
        """
        try:
            request = read_request(body, Endpoint.RESPONSES)
        except InputError:
            return None
        members = request.members.found
        grant = head.grant
        route = self._find_route(head.directives.task, request.model, serving)
        is_refused = route is None or not is_route_allowed(grant, route.name)
        if route is None or is_refused or members.get("conversation"):
            return None
        caller = self._hash_caller(scope, grant, route, members)
        history = await self._resolve_references(caller, grant, route, members)
        if isinstance(history, Reply):
            return history
        if any(item.piece for item in history):
            body = joined_body(members, history)
        return OpenedHistory(body, history, list_references(members), caller, route)

    def _find_route(
        self,
        task: bytes | None,
        model: str,
        serving: CompiledSnapshot,
    ) -> Route | None:
        """Returns the route that the client names, if it keeps its answers."""
        compiled = serving.tasks.get(task) if task is not None else None
        compiled = compiled or serving.routes.get(model) or self._names.find(model, serving)
        keeps_answers = compiled is not None and compiled.route.settings.responses_state_h
        return compiled.route if compiled is not None and keeps_answers else None

    def wrap_send(
        self,
        opened: OpenedHistory,
        response: RoutedResponse,
        send: Send,
    ) -> Send:
        """Returns a `send` that stores the answer before it passes the answer's end on.

        Returns the same `send` if the client or its key does not want the answer stored.
        """
        if is_copy_refused(response.job):
            return send
        return _KeepingSend(self, opened, response, send)

    async def _resolve_references(
        self,
        caller: str,
        grant: KeyGrant,
        route: Route,
        members: Mapping[str, object],
    ) -> Sequence[HistoryItem] | Reply:
        """Returns a request's whole history, or the refusal.

        Args:
            members: the request's.
        """
        references = list_references(members)
        # The limit of requests comes later, and a refused reference never reaches it.
        refusal = references and self._admission.admit_aside(
            AsideKind.HISTORIES, grant.id, grant.limits
        )
        if refusal:
            return refusal
        try:
            return await self._read_history(caller, members, references)
        except NotKept as missing:
            return _refuse_reference(missing, route)
        except HistoryTooLong as error:
            return error_reply(413, str(error), "request_too_large")
        except Exception as error:  # noqa: BLE001 - its text may contain content
            log.warning("a kept history cannot be read: %s", type(error).__name__)
            message = "the database with this route's answers does not answer: try again"
            return error_reply(503, message, "responses_state_unavailable", headers=(RETRY,))

    def _hash_caller(
        self,
        scope: Scope,
        grant: KeyGrant,
        route: Route,
        members: Mapping[str, object],
    ) -> str:
        """Returns a hash of all that a request must share with the request before it.

        `x-swapproof-sticky` is no part of it: that header chooses the arm, and a client may
        give each request of a thread another value.
        """
        users = [name for name in body_callers(members) if name.startswith(_USERS)]
        person = header_person(scope["headers"])
        if person:
            users.append(f"header:{person.decode('latin-1')}")
        parts = [grant.id, route.settings.data_class, *users]
        return hash_user(f"responses:{canonical_json(parts)}", self._secret)

    async def _read_history(
        self,
        caller: str,
        members: Mapping[str, object],
        references: Sequence[str],
    ) -> Sequence[HistoryItem]:
        """Returns a request's whole history. Raises NotKept, HistoryTooLong, StoreUnavailable.

        Args:
            members: the request's.

        Reads the database only for references.
        """
        # No database takes a NUL or a lone surrogate in an id, and no answer has such an id.
        ids = [id_ for id_ in references if id_.isprintable()]
        if not ids:
            return join_history(members, {}, {})

        def read() -> Sequence[HistoryItem]:
            now = self._clock.now()
            with self._store.read() as tx:
                names = tx.kept_pieces.find(caller, ids, now)
                pieces = list_pieces(members, names)
                sizes = tx.kept_pieces.sizes(caller, pieces)
                # A request may refer to one piece many times.
                size = sum(sizes.get(piece, 0) for piece in pieces)
                if size > self._max_body_bytes:
                    raise HistoryTooLong(size, self._max_body_bytes)
                return join_history(members, names, tx.kept_pieces.find(caller, pieces, now))

        return await self._threads.run(read)

    async def keep(
        self,
        opened: OpenedHistory,
        response: RoutedResponse,
        answer: Mapping[str, Any],
    ) -> None:
        """Stores an answer with its history. Raises nothing: the client gets the answer anyway,
        and a reference to an answer that is not kept is refused.
        """
        try:
            job = response.job
            upstream = response.progress.upstream
            users = hash_callers(caller_keys(job.request, job.sticky_key), self._secret)
            maker = upstream.maker if upstream else ""
            cut = cut_history(opened.history, answer, maker, users)
            if cut is None:
                return
            is_kept = False
            if self._clock.monotonic() >= self._rests_until_s:
                is_kept = await self._threads.run(partial(self._write, opened, cut, users))
        except (StoreUnavailable, TimeoutError):
            # A database that hangs must not delay the end of each answer.
            self._rests_until_s = self._clock.monotonic() + REST_S
            is_kept = False
        except Exception as error:  # noqa: BLE001 - its text may contain content
            log.warning("an answer is not kept: %s", type(error).__name__)
            is_kept = False
        self._counters["responses_kept" if is_kept else "responses_not_kept"] += 1

    def _write(self, opened: OpenedHistory, cut: CutHistory, users: str) -> bool:
        """Returns False if the answer, or all answers together, would be too large."""
        now = self._clock.now()
        settings = opened.route.settings
        until = now + timedelta(hours=settings.responses_state_h)
        pieces = [
            KeptPiece(
                opened.caller,
                id_,
                now,
                until,
                opened.route.name,
                settings.data_class,
                users,
                len(canonical_json(content).encode("utf-8", "surrogatepass")),
                content,
            )
            # In one order, so that two routers do not wait for one another's rows.
            for id_, content in sorted(cut.new.items())
        ]
        added = sum(piece.size for piece in pieces)
        if added > MOST_ADDED_BYTES:
            return False
        with self._store.write() as tx:
            if self._clock.monotonic() >= self._summed_until_s:
                self._stored_bytes = tx.kept_pieces.total_bytes()
                self._summed_until_s = self._clock.monotonic() + SUM_LASTS_S
            if self._stored_bytes + added > MOST_BYTES:
                return False
            # The names, too: a client may send them again with each request.
            earlier = sorted({*cut.kept, *opened.references})
            if tx.kept_pieces.prolong(opened.caller, earlier, until) < len(earlier):
                return False  # a person deleted them meanwhile
            tx.kept_pieces.store(pieces)
        self._stored_bytes += added
        return True


def _refuse_reference(missing: NotKept, route: Route) -> Reply:
    is_answer = missing.param == PREVIOUS
    kind = "Previous response" if is_answer else "Item"
    duration = format_state_time(route.settings.responses_state_h)
    message = (
        f"{kind} with id {missing.id[:100]!r} not found. Route {route.name!r} keeps an answer "
        f"for {duration}, for the API key and the user that got it; {SEND_WHOLE}"
    )
    code = "previous_response_not_found" if is_answer else "item_not_found"
    return error_reply(404, message, code, param=missing.param)


class _KeepingSend:
    """Passes an answer on, and keeps it before its last bytes. An ASGI `send`."""

    def __init__(
        self,
        kept: KeptResponses,
        opened: OpenedHistory,
        response: RoutedResponse,
        send: Send,
    ) -> None:
        self._kept = kept
        self._opened = opened
        self._response = response
        self._send = send
        self._events: AnswerEvents | None = None
        self._plain_parts: list[bytes] | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            is_answer = message["status"] == 200
            is_plain = JSON in message["headers"]
            self._plain_parts = [] if is_answer and is_plain else None
            self._events = AnswerEvents() if is_answer and not is_plain else None
            await self._send(message)
            return
        if self._plain_parts is not None:
            await self._keep_plain(message, self._plain_parts)
        elif self._events is not None:
            message = await self._keep_stream(message, self._events)
        await self._send(message)

    async def _keep_plain(self, message: Message, whole: list[bytes]) -> None:
        whole.append(message.get("body", b""))
        if not message.get("more_body"):
            answer = _read_object(b"".join(whole))
            if answer is not None:
                await self._kept.keep(self._opened, self._response, answer)

    async def _keep_stream(self, message: Message, events: "AnswerEvents") -> Message:
        """Returns the message with the complete events; an incomplete event waits."""
        body = events.feed(message.get("body", b""))
        if not message.get("more_body"):
            body += events.rest()
        if events.answer is not None:
            answer = events.answer
            events.answer = None
            await self._kept.keep(self._opened, self._response, answer)
        return {**message, "body": body}


class AnswerEvents(SseParser):
    """Passes a stream's events on, and reads the answer in its last event."""

    def __init__(self) -> None:
        self.answer: Mapping[str, Any] | None = None
        self._items: list[object] = []
        self._unread = b""  # the beginning of an event that is too large to read

    def feed(self, data: bytes) -> bytes:
        if self.failure:
            return data
        events = super().feed(data)
        unread = self._unread
        self._unread = b""
        return events + unread

    def rest(self) -> bytes:
        """Returns the bytes that no empty line has ended."""
        rest = self._join()
        self._buffer = b""
        return self._event(rest, b"") if rest else b""

    def _event(self, event: bytes, end: bytes) -> bytes:
        if _ITEM in event or any(name in event for name in _ENDS):
            self._note(_read_object(event_data(event) or b"") or {})
        return event + end

    def _note(self, data: Mapping[str, Any]) -> None:
        kind = str(data.get("type"))
        response = data.get("response")
        if kind == "response.output_item.done":
            self._items.append(data.get("item"))
        elif kind.endswith((".completed", ".incomplete")) and isinstance(response, dict):
            # Some servers send an empty output at the end, although they sent items before.
            self.answer = {**response, "output": response.get("output") or self._items}

    def _fail(self, why: str) -> None:
        self.failure = why
        if self._pieces is not None:
            self._unread = self._pieces.joined()


def _read_object(body: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
