"""The front door stands before every request to a model: it finds who asks and the revision
that serves, takes a place among the requests under way, and words errors in the client's
protocol.
"""

import itertools
import logging
from typing import Final

from harness.domain.routing.table import KeyGrant
from router.access.callers import Callers
from router.health.early_recovery import EarlyRecovery
from router.protocols.messages.errors import anthropic_error
from router.recording.port import Recording
from router.server.asgi import Scope
from router.server.headers import Header
from router.server.internal_errors import InternalErrors, RouterPart
from router.server.paths import is_anthropics
from router.server.replies import Reply, error_reply
from router.server.request_body import CLOSE
from router.snapshot.compiled import CompiledSnapshot
from router.snapshot.holder import SnapshotHolder

log = logging.getLogger(__name__)

SOON: Final[Header] = (b"retry-after", b"1")


class FrontDoor:
    """Serves one worker. most: requests under way."""

    def __init__(
        self,
        holder: SnapshotHolder,
        recorder: Recording,
        most: int,
        callers: Callers,
        renewals: EarlyRecovery,
        errors: InternalErrors,
    ) -> None:
        self.under_way = 0
        self._holder = holder
        self._recorder = recorder
        self._most = most
        self._callers = callers
        self._renewals = renewals
        self._errors = errors
        self._count = itertools.count(1)

    def next_id(self) -> Header:
        # The worker's name is new for every process, so that ids never repeat.
        number = f"req_{self._recorder.worker}-{next(self._count):x}"
        return b"x-swapgate-request-id", number.encode()

    def identify(self, scope: Scope) -> Reply | tuple[KeyGrant, CompiledSnapshot]:
        """Finds who asks, and the revision for all of this request; or refuses it."""
        serving = self._holder.current
        if serving is None:
            message = "the router has no routes yet; try again in a second"
            return error_reply(503, message, "not_ready", headers=(SOON,))
        try:
            if self._renewals.serving is not serving:
                self._renewals.evaluate(serving)
        except Exception as error:
            self._errors.note(RouterPart.RECORDING, error)
        grant = self._callers.identify(scope, serving, is_anthropics)
        return grant if isinstance(grant, Reply) else (grant, serving)

    def enter(self) -> Reply | None:
        """Takes a place among the requests under way; refuses where there is none."""
        if self.under_way >= self._most:
            self._recorder.counters["refused_when_full"] += 1
            return error_reply(503, "this worker is full", "overloaded", headers=(SOON, CLOSE))
        self.under_way += 1
        return None

    def leave(self) -> None:
        """Gives a place up."""
        self.under_way -= 1

    def note_failure(self, request_id: Header, error: Exception) -> Reply:
        """Notes a fault of ours that a request met, and words it for its client."""
        number = request_id[1].decode()
        # Its own words may hold content; the place is told once.
        log.error("request %s failed", number)
        self._errors.note(RouterPart.REQUEST, error)
        return error_reply(500, f"the router failed; quote {number}", "internal_error")

    def client_reply(self, scope: Scope, request_id: Header, reply: Reply) -> Reply:
        """Words an error in the client's protocol; leaves any other reply as it is."""
        if reply.status >= 400 and is_anthropics(scope):
            return anthropic_error(reply, request_id[1].decode())
        return reply
