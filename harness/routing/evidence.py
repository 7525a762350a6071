"""The evidence that lets a target serve a route, and people's exceptions. Pure.

A proof is a file with the signed rows of one swap. An auditor verifies it with the public keys
(`signing.pub`), without the database or a secret. It has scores, digests and decisions, but no
texts of people or models.

`harness.routing.route_changes` and the database check whether evidence is valid for a change.
`harness.app.proof` verifies a file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from harness.frame.errors import InputError
from harness.frame.plain_data import digest
from harness.gate.verdict import Passed


class EvidenceKind(StrEnum):
    """BASELINE: the route was created with the target."""

    BASELINE = "baseline"
    VERDICT = "verdict"
    WAIVER = "waiver"


@dataclass(frozen=True, slots=True)
class Waiver:
    """A person's consent to a target without a verdict. An expired waiver does not allow a new
    chain of fallbacks.
    """

    id: str
    route: str
    target: str
    reason: str
    author: str
    expires_at: datetime

    def expired(self, now: datetime) -> bool:
        return self.expires_at <= now


@dataclass(frozen=True, slots=True)
class FormerTarget:
    """A claim that a target was an incumbent or a fallback of this route before; the store
    checks it.
    """

    target: str


ChainProof = Passed | Waiver | FormerTarget


@dataclass(frozen=True, slots=True)
class TargetEvidence:
    """The reason why one target may serve one route.

    Its id is a hash of the other fields, so that equal evidence is stored once.
    """

    route: str
    target: str
    kind: EvidenceKind
    proof: str = ""  # the verdict's or the waiver's id
    verdict_incumbent: str | None = None

    @property
    def id(self) -> str:
        return f"e_{digest([self.route, self.target, self.kind.value, self.proof])[:24]}"


@dataclass(frozen=True, slots=True)
class RouteEvidence:
    """The evidence of each target in one version of a route."""

    incumbent: TargetEvidence
    canary: TargetEvidence | None = None
    fallbacks: tuple[TargetEvidence, ...] = ()  # in the order of the chain


def baseline_evidence(route: str, target: str) -> TargetEvidence:
    """Returns evidence for a target with which the route was created."""
    return TargetEvidence(route, target, EvidenceKind.BASELINE)


def verdict_evidence(proof: Passed) -> TargetEvidence:
    """Returns the evidence that a passed verdict gives."""
    return TargetEvidence(
        proof.route,
        proof.candidate,
        EvidenceKind.VERDICT,
        proof.id,
        proof.incumbent,
    )


def waiver_evidence(waiver: Waiver) -> TargetEvidence:
    """Returns the evidence that a person's waiver gives."""
    return TargetEvidence(waiver.route, waiver.target, EvidenceKind.WAIVER, waiver.id)


MAX_DURATION: Final = timedelta(days=7)
CONFIRM_WITHIN: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """An emergency: a target serves without proof, after a second person confirmed it.

    Both people are stored with their keys, and the former incumbent returns at the end.
    """

    id: str
    route: str
    incumbent: str  # id of the target that serves before and after the break-glass
    target: str  # id of the target that serves without proof
    reason: str
    through_freeze: bool  # whether it may begin while the route is frozen
    proposer: str
    proposer_principal: str
    proposer_key: str | None  # the management key's id, None for the local operator
    created_at: datetime
    confirm_by: datetime
    expires_at: datetime
    # The next five fields are None until a second person confirms.
    confirmer: str | None = None
    confirmer_principal: str | None = None
    confirmer_key: str | None = None
    confirmed_at: datetime | None = None
    waiver: str | None = None
    ended_at: datetime | None = None
    ended_because: str = ""

    @property
    def self_approval(self) -> bool:
        """Always False: no policy lets a person confirm their own break-glass."""
        return False

    @property
    def confirmed(self) -> bool:
        return self.confirmed_at is not None

    @property
    def state(self) -> str:
        """The state for people."""
        if self.ended_at is not None:
            return "ended"
        return "in force" if self.confirmed else "waits for a second person"


FORMAT: Final = "swapproof proof 1"

StoredValues = Mapping[str, Any]


@dataclass(frozen=True)
class Proof:
    """The content of a proof file, not yet verified."""

    installation: str  # its id; every signature covers it
    proposal: str
    exported_at: str  # ISO 8601, UTC
    # By table: the stored values of its rows' signed columns, and their signatures.
    rows: Mapping[str, Sequence[StoredValues]]
    # By route version: its fallbacks, each as [target, evidence]. The version's signature
    # covers them.
    chains: Mapping[str, Sequence[Sequence[str]]]
    signature: str = ""  # covers the whole file

    @property
    def content(self) -> dict[str, object]:
        """The values that the file's signature covers, by name."""
        return {
            "format": FORMAT,
            "installation": self.installation,
            "proposal": self.proposal,
            "exported_at": self.exported_at,
            "rows": self.rows,
            "chains": self.chains,
        }


@dataclass(frozen=True, slots=True)
class SwapChange:
    """A signed version of the route that belongs to the swap."""

    version: int
    kind: str  # canary | weight | abort | promotion | …
    incumbent: str
    weight_bps: int
    at: datetime
    actor: str
    reason: str


def format_proof(proof: Proof) -> str:
    """Writes a proof as its file; the same proof always gives the same bytes."""
    document = {**proof.content, "signature": proof.signature}
    return (
        json.dumps(
            document,
            indent=1,
            sort_keys=True,
            ensure_ascii=True,
        )
        + "\n"
    )


def parse_proof(text: str) -> Proof:
    """Parses a proof. Raises InputError, with the line, if the file was changed."""
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise InputError(f"its format is {document['format']!r}, not {FORMAT!r}")
        fields = (
            "installation",
            "proposal",
            "exported_at",
            "rows",
            "chains",
            "signature",
        )
        proof = Proof(**{name: document[name] for name in fields})
        canonical_text = format_proof(proof)
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno}: this is not JSON: {error.msg}") from None
    except KeyError as error:
        raise InputError(
            f"`swapproof proof export` did not write this file: it has no field {error}"
        ) from None
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"`swapproof proof export` did not write this file: {error}") from None
    if canonical_text != text:
        raise InputError(f"line {_first_difference(canonical_text, text)} was changed")
    return proof


def _first_difference(canonical_text: str, text: str) -> int:
    """Returns the number of the first line that differs, from 1."""
    pairs = zip(canonical_text.splitlines(), text.splitlines(), strict=False)
    differing = (
        number
        for number, (canonical_line, file_line) in enumerate(pairs, 1)
        if canonical_line != file_line
    )
    return next(differing, min(canonical_text.count("\n"), text.count("\n")) + 1)
