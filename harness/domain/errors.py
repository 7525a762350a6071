"""Every error of ours, on one page. Each says what happened, to what, and what to do next.

SwapgateError
├── ConfigError            the file is wrong; says file, line, nearest right key
├── InputError             what a caller passed is wrong; says the place (file, line, field)
├── NotFound               no such route, proposal, run, key, target
├── NotAllowed             the caller's role, or the four-eyes rule, forbids it
├── Conflict               somebody else was first, or the thing is busy
│   ├── RevisionConflict   the routing table moved on: decide again
│   ├── StaleWrite         the row's version moved on: load it again
│   └── RouteBusy          the route has an open proposal; says which
├── IllegalTransition      a pair that the transition table does not have
├── ProofRefused           the proof is missing, stale, expired, or another target's
├── StaleEvidence          pairs whose pins differ between the arms or from the registration
├── StoreUnavailable       the database did not answer; the same call may succeed later
├── DecryptionFailed       what is stored cannot be read with the encryption keys at hand
├── DeliveryFailed         a sink did not take an alert; it is tried again
├── JudgeUnfit             a suite's judge is away, or does not agree with its references
├── WorkerFailed           an eval worker ended without finishing its run
├── SnapshotInvalid        a snapshot does not validate; the old one goes on serving
└── UpstreamError          a provider failed (domain.failures says how)
"""

from typing import ClassVar


class SwapgateError(Exception):
    """`retryable`: the same call, unchanged, may yet succeed. `exit_code`: the CLI's answer."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


class ConfigError(SwapgateError):
    exit_code = 2


class InputError(SwapgateError):
    exit_code = 2


class NotFound(SwapgateError): ...


class NotAllowed(SwapgateError):
    exit_code = 7


class Conflict(SwapgateError):
    exit_code = 6


class RevisionConflict(Conflict):
    # Not retryable: the decision must be made again, not the write.
    ...


class StaleWrite(Conflict): ...


class RouteBusy(Conflict): ...


class IllegalTransition(SwapgateError):
    exit_code = 6


class ProofRefused(SwapgateError):
    exit_code = 7


class StaleEvidence(SwapgateError): ...


class StoreUnavailable(SwapgateError):
    retryable = True


class DecryptionFailed(SwapgateError): ...


class DeliveryFailed(SwapgateError):
    retryable = True


class JudgeUnfit(SwapgateError): ...


class WorkerFailed(SwapgateError):
    retryable = True


class SnapshotInvalid(SwapgateError): ...


class UpstreamError(SwapgateError): ...
