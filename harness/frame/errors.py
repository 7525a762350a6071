"""Every error that Swapgate raises is a class here. Each message says what happened, to what,
and what to do next.

SwapgateError
├── ConfigError            the file is wrong; says file, line, nearest right key
│   └── RetiredKeys        it has keys that are gone; names all, with their replacements
├── InputError             what a caller passed is wrong; says the place (file, line, field)
│   └── AmbiguousName      several models fit a name equally well; says which
├── NotFound               no such route, proposal, run, key, target
├── NotAllowed             the caller's role, or the four-eyes rule, forbids it
├── Conflict               somebody else was first, or the thing is busy
│   ├── RevisionConflict   the routing table moved on: decide again
│   ├── StaleWrite         the row's version moved on: load it again
│   ├── LeaseLost          an eval run is not this worker's any more: its answers are not stored
│   ├── RouteBusy          the route has an open proposal; says which
│   └── SessionBusy        an agent's session answers another message: wait for its end
├── IllegalTransition      a pair that the transition table does not have
├── ProofRefused           the proof is missing, stale, expired, or another target's
│   └── EvidenceMismatch   the stored scores do not give the verdict any more
├── StaleEvidence          pairs whose pins differ between the arms or from the registration
├── StoreUnavailable       the database did not answer; the same call may succeed later
│   └── DatabaseUnusable   its file is missing or damaged, or another version or role is needed
├── DecryptionFailed       what is stored cannot be read with the encryption keys at hand
├── SignInRefused          the server of an OAuth provider says no: a person signs in anew
├── SignInUnreachable      it did not answer as it should; the same call may succeed later
├── DiscoveryFailed        a provider's list of models was not read, and none is kept of it
├── ToolServerFailed       an agent's tool server, or its tool, failed: the model is told so
├── DeliveryFailed         a sink did not take an alert; it is tried again
├── JudgeUnfit             a suite's judge is away, or does not agree with its references
├── ProviderAway           a provider does not answer; the run waits, and asks it again
├── SpendingPaused         the monthly cap is reached; the work waits
├── PatternTooSlow         a user's regular expression takes too long for a text
├── SchemaTooLarge         a JSON schema takes too many steps for a value
├── SignatureInvalid       a stored row is not what its signature covers, or has none
├── SnapshotInvalid        a snapshot does not validate; the old one goes on serving
│   └── DatabaseRestored   it is older than what this router served; a person decides
├── UpstreamError          a provider failed (`reliability.failures`: how)
│   └── NoAnswer           a call brought no answer; says whether another one may
└── CallFailed             a ModelClient's call has no answer; says status, code, retry_after_s
    ├── CallRefused        the request is wrong
    ├── KeyRefused         the key opens nothing, or not this route
    ├── CallLimited        too much at once: wait for retry_after_s
    ├── NobodyAnswered     every target failed, or no target is left
    ├── RouterUnreachable  no answer from the router, or not in time
    ├── AnswerUnreadable   the answer does not come from a router
    ├── StreamBroken       a stream failed after it had begun
    └── ToolLoopUnfinished the model still asks for tools after the last turn
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final


class SwapgateError(Exception):
    """Every error that we raise is one of these. `retryable`: the same call, unchanged, may yet
    succeed. `exit_code`: the CLI's answer. `docs_page`: the page of the docs that says more.

    code: one word for programs, where the answer's protocol has a place for it.
    """

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    docs_page: ClassVar[str] = ""

    def __init__(self, *args: object, code: str = "") -> None:
        super().__init__(*args)
        self.code = code


class ConfigError(SwapgateError):
    docs_page = "reference/config"
    exit_code = 2


class RetiredKeys(ConfigError):
    exit_code = 1


class InputError(SwapgateError):
    exit_code = 2


class AmbiguousName(InputError):
    """Several models fit a name equally well. candidates: their `provider/model`."""

    def __init__(
        self, *args: object, candidates: Sequence[str] = (), code: str = "model_ambiguous"
    ) -> None:
        super().__init__(*args, code=code)
        self.candidates = tuple(candidates)


class PatternTooSlow(SwapgateError): ...


class SchemaTooLarge(SwapgateError): ...


class NotFound(SwapgateError): ...


class NotAllowed(SwapgateError):
    docs_page = "reference/dashboard"
    exit_code = 7


class Conflict(SwapgateError):
    exit_code = 6


class RevisionConflict(Conflict):
    # Not retryable: the decision must be made again, not the write.
    ...


class StaleWrite(Conflict): ...


class LeaseLost(Conflict): ...


class RouteBusy(Conflict): ...


class SessionBusy(Conflict):
    retryable = True


class IllegalTransition(SwapgateError):
    exit_code = 6


class ProofRefused(SwapgateError):
    docs_page = "explanation/gate"
    exit_code = 7


class EvidenceMismatch(ProofRefused):
    """The stored scores do not give the verdict any more. differences: in words."""

    def __init__(self, proposal: str, verdict: str, differences: str) -> None:
        super().__init__(
            f"verdict {verdict} is refused: the stored scores do not give it any more "
            f"({differences}); compare the database with a backup, then propose again"
        )
        self.proposal, self.verdict, self.differences = proposal, verdict, differences


class StaleEvidence(SwapgateError):
    docs_page = "explanation/gate"


class StoreUnavailable(SwapgateError):
    docs_page = "reference/database"
    retryable = True


class DatabaseUnusable(StoreUnavailable):
    # A person has to do something first.
    retryable = False


class DecryptionFailed(SwapgateError):
    docs_page = "how-to/credentials"


class SignInRefused(SwapgateError):
    docs_page = "how-to/credentials"
    exit_code = 7


class SignInUnreachable(SwapgateError):
    docs_page = "how-to/credentials"
    retryable = True


class DiscoveryFailed(SwapgateError):
    docs_page = "reference/models"
    retryable = True


class ToolServerFailed(SwapgateError):
    docs_page = "reference/mcp"


class DeliveryFailed(SwapgateError):
    docs_page = "how-to/alerts"
    retryable = True


class SpendingPaused(SwapgateError):
    docs_page = "how-to/spending"
    retryable = False  # not before money is there: whoever called waits for that


# Between the provider and the reason in the text of a ProviderAway.
AWAY: Final = " is away: "


class ProviderAway(SwapgateError):
    """A run waits for a provider. silent_s: how long it has answered nothing."""

    docs_page = "reference/policies"

    def __init__(self, provider: str, why: str, silent_s: float = 0.0) -> None:
        super().__init__(f"{provider}{AWAY}{why}")
        self.silent_s = silent_s


class JudgeUnfit(SwapgateError):
    docs_page = "reference/suites"


class SignatureInvalid(SwapgateError):
    docs_page = "reference/database"
    exit_code = 7


class SnapshotInvalid(SwapgateError):
    docs_page = "reference/router"


class DatabaseRestored(SnapshotInvalid):
    docs_page = "reference/database"


class UpstreamError(SwapgateError): ...


class NoAnswer(UpstreamError):
    """Raised when a call brought no answer. again: another attempt may bring one."""

    def __init__(self, text: str, *, again: bool = True) -> None:
        super().__init__(text)
        self.again = again


class CallFailed(SwapgateError):
    """Raised when a call of the client has no answer. status: of HTTP, None where there was
    none. code: the router's word for it.

    retry_after_s: how long to wait, where it was said. should_retry: whether the router says
    that trying again makes sense; None where it says nothing. details: the error as the router
    wrote it, with every attempt's failure where there were attempts.
    """

    docs_page = "how-to/client"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry
        self.details: Mapping[str, object] = details or {}


class CallRefused(CallFailed):
    exit_code = 2


class KeyRefused(CallFailed):
    exit_code = 7


class CallLimited(CallFailed):
    retryable = True


class NobodyAnswered(CallFailed):
    retryable = True


class RouterUnreachable(CallFailed):
    retryable = True


class AnswerUnreadable(CallFailed): ...


class StreamBroken(CallFailed):
    # What came before it may have been used already; the same call may yet succeed.
    retryable = True


class ToolLoopUnfinished(CallFailed):
    """The model still asks for tools after the last turn."""

    # The Messages so far, from which a new request can go on.
    conversation: Sequence[object] = ()
