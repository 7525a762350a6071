"""Every error that Swapproof raises is a class here. Each message says what happened, to what,
and what to do next.

SwapproofError
├── ConfigError            the file is wrong; says file, line, nearest right key
│   └── RetiredKeys        the file has keys that no longer exist; lists their replacements
├── InputError             a caller's input is wrong; says the place (file, line, field)
│   └── AmbiguousName      several models match a name equally well; lists them
├── NotFound               no such route, proposal, run, key, target
├── NotAllowed             the caller's role, or the four-eyes rule, forbids it
├── Conflict               another writer was first, or the object is busy
│   ├── RevisionConflict   the routing table has a newer revision: decide again
│   ├── StaleWrite         the row has a newer version: load it again
│   ├── LeaseLost          another worker owns the eval run: its samples are not stored
│   ├── RouteBusy          the route has an open proposal; names it
│   └── SessionBusy        an agent's session still answers another message: wait for it
├── IllegalTransition      the current state does not allow the change
├── ProofRefused           the proof is missing, stale, expired, or for another target
│   └── EvidenceMismatch   the stored scores no longer give the verdict
├── StaleEvidence          a pin differs between the arms, or from the registered pin
├── StoreUnavailable       the database did not answer; the same call may succeed later
│   └── DatabaseUnusable   the database's file, version or role is wrong; a person must act
├── DecryptionFailed       no available encryption key decrypts a stored value
├── SignInRefused          an OAuth provider's server refused; a person must sign in again
├── SignInUnreachable      an OAuth provider's server failed; the call may succeed later
├── DiscoveryFailed        Swapproof cannot read a provider's list of models, and has no copy
├── ToolServerFailed       an agent's tool server or tool failed; the model gets the error
├── DeliveryFailed         a sink did not accept an alert; Swapproof tries again
├── JudgeUnfit             a suite's judge is unavailable, or disagrees with human scores
├── RecordStale            the incumbent's answers differ from a suite's logged answers
├── ProviderAway           a provider does not answer; the run waits and tries again
├── SpendingPaused         spending reached the monthly cap; the work waits
├── PatternTooSlow         a user's regular expression takes too long for a text
├── SchemaTooLarge         a JSON schema takes too many steps for a value
├── SignatureInvalid       a stored row has no signature, or differs from the signed content
├── SnapshotInvalid        a snapshot is invalid; the router keeps serving the old one
│   └── DatabaseRestored   the snapshot is older than the served one; a person decides
├── UpstreamError          a provider failed; says how
│   └── NoAnswer           a call got no answer; says whether a retry may succeed
└── CallFailed             a ModelClient's call has no answer; has status, code, retry_after_s
    ├── CallRefused        the request is wrong
    ├── KeyRefused         the key is invalid, or does not allow this route
    ├── CallLimited        a limit is reached: wait for retry_after_s
    ├── NobodyAnswered     every target failed, or no target is available
    ├── RouterUnreachable  the router did not answer, or not in time
    ├── AnswerUnreadable   the response does not come from a router
    ├── StreamBroken       a stream failed after it had begun
    └── ToolLoopUnfinished the model still asks for tools after the last turn
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final


class SwapproofError(Exception):
    """Base of all our errors.

    retryable: the same call, unchanged, may still succeed.
    exit_code: the exit code of the CLI.
    docs_page: the docs page that explains the error.
    code: an error code for programs, in protocols that have a field for it.
    """

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    docs_page: ClassVar[str] = ""

    def __init__(self, *args: object, code: str = "") -> None:
        super().__init__(*args)
        self.code = code


class ConfigError(SwapproofError):
    docs_page = "reference/config"
    exit_code = 2


class RetiredKeys(ConfigError):
    exit_code = 1


class InputError(SwapproofError):
    exit_code = 2


class AmbiguousName(InputError):
    """Raised if several models match a name equally well. candidates: their
    `provider/model`.
    """

    def __init__(
        self,
        *args: object,
        candidates: Sequence[str] = (),
        code: str = "model_ambiguous",
    ) -> None:
        super().__init__(*args, code=code)
        self.candidates = tuple(candidates)


class PatternTooSlow(SwapproofError): ...


class SchemaTooLarge(SwapproofError): ...


class NotFound(SwapproofError): ...


class NotAllowed(SwapproofError):
    docs_page = "reference/dashboard"
    exit_code = 7


class Conflict(SwapproofError):
    exit_code = 6


class RevisionConflict(Conflict):
    # Not retryable: the caller must decide again by the newer revision.
    ...


class StaleWrite(Conflict): ...


class LeaseLost(Conflict): ...


class RouteBusy(Conflict): ...


class SessionBusy(Conflict):
    retryable = True


class IllegalTransition(SwapproofError):
    exit_code = 6


class ProofRefused(SwapproofError):
    docs_page = "explanation/gate"
    exit_code = 7


class EvidenceMismatch(ProofRefused):
    """Raised if the stored scores no longer give the verdict. differences: in words."""

    def __init__(
        self,
        proposal: str,
        verdict: str,
        differences: str,
    ) -> None:
        super().__init__(
            f"verdict {verdict} is refused: the stored scores no longer give it "
            f"({differences}); compare the database with a backup, then propose again"
        )
        self.proposal = proposal
        self.verdict = verdict
        self.differences = differences


class StaleEvidence(SwapproofError):
    docs_page = "explanation/gate"


class StoreUnavailable(SwapproofError):
    docs_page = "reference/database"
    retryable = True


class DatabaseUnusable(StoreUnavailable):
    # A person must repair the database first.
    retryable = False


class DecryptionFailed(SwapproofError):
    docs_page = "how-to/credentials"


class SignInRefused(SwapproofError):
    docs_page = "how-to/credentials"
    exit_code = 7


class SignInUnreachable(SwapproofError):
    docs_page = "how-to/credentials"
    retryable = True


class DiscoveryFailed(SwapproofError):
    docs_page = "reference/models"
    retryable = True


class ToolServerFailed(SwapproofError):
    docs_page = "reference/mcp"


class DeliveryFailed(SwapproofError):
    docs_page = "how-to/alerts"
    retryable = True


class SpendingPaused(SwapproofError):
    docs_page = "how-to/spending"
    retryable = False  # the caller waits until the cap allows spending again


# Separates the provider from the reason in the text of a ProviderAway. A waiting run stores
# only this text, and the provider may be its judge's, so readers need this mark.
AWAY: Final = " is away: "


class ProviderAway(SwapproofError):
    """Raised if a run must wait for a provider. silent_s: seconds since its last answer."""

    docs_page = "reference/policies"

    def __init__(
        self,
        provider: str,
        why: str,
        silent_s: float = 0.0,
    ) -> None:
        super().__init__(f"{provider}{AWAY}{why}")
        self.silent_s = silent_s


class JudgeUnfit(SwapproofError):
    docs_page = "reference/suites"


class RecordStale(SwapproofError):
    docs_page = "how-to/traffic-suite"


class SignatureInvalid(SwapproofError):
    docs_page = "reference/database"
    exit_code = 7


class SnapshotInvalid(SwapproofError):
    docs_page = "reference/router"


class DatabaseRestored(SnapshotInvalid):
    docs_page = "reference/database"


class UpstreamError(SwapproofError): ...


class NoAnswer(UpstreamError):
    """Raised if a call got no answer. again: whether another attempt may get an answer."""

    def __init__(self, text: str, *, again: bool = True) -> None:
        super().__init__(text)
        self.again = again


class CallFailed(SwapproofError):
    """Raised if a client's call has no answer.

    status: the HTTP status; None without a response.
    code: the router's error code.
    retry_after_s: how long to wait; None if the router did not say.
    should_retry: whether the router recommends a retry; None if it did not say.
    details: the router's error object, with the failure of each attempt.
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
    # Retryable, although the client may have used the first part of the answer.
    retryable = True


class ToolLoopUnfinished(CallFailed):
    # The Messages API's messages up to the failure. A new request can continue from them.
    conversation: Sequence[object] = ()
