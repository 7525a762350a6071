"""A proof is what one swap rests on, in a file: the rows as they were signed.

Somebody without the database and without a secret verifies it with the public keys
(`signing.pub`). It has no texts of people or models: scores, digests, decisions alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from harness.frame.errors import InputError
from harness.gate.run import EvalRun, Sample
from harness.gate.suite_plan import SuitePin
from harness.gate.verdict import Verdict
from harness.providers.target import Target
from harness.routing.proposal import Approval, Proposal

FORMAT: Final = "swapgate proof 1"

StoredValues = Mapping[str, Any]


@dataclass(frozen=True)
class Proof:
    installation: str  # which every signature covers
    proposal: str
    exported_at: str  # ISO 8601, UTC
    # By table: the columns that the signature covers, as they are stored, and the signature.
    rows: Mapping[str, Sequence[StoredValues]]
    # By version of the route: its fallbacks as [target, evidence], which its signature covers.
    chains: Mapping[str, Sequence[Sequence[str]]]
    signature: str = ""  # of the whole file

    @property
    def content(self) -> dict[str, object]:
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


@dataclass(frozen=True)
class ProvenRows:
    proposal: Proposal
    verdict: Verdict
    runs: Mapping[str, EvalRun]
    samples: Mapping[str, tuple[Sample, ...]]  # by run, in the run's order; without texts
    by_worker: Mapping[str, int]  # by run: samples that an eval worker's key signed
    suites: Mapping[str, SuitePin]
    targets: Mapping[str, Target]
    approvals: tuple[Approval, ...]
    changes: tuple[SwapChange, ...]  # oldest first
    signed_by: str  # the id of the key that signed the file


def format_proof(proof: Proof) -> str:
    whole = {**proof.content, "signature": proof.signature}
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def parse_proof(text: str) -> Proof:
    """Reads the file. Raises InputError, with the line, where it was changed."""
    try:
        whole = json.loads(text)
        if whole["format"] != FORMAT:
            raise InputError(f"its format is {whole['format']!r}, and {FORMAT!r} is known here")
        fields = ("installation", "proposal", "exported_at", "rows", "chains", "signature")
        proof = Proof(**{name: whole[name] for name in fields})
        written = format_proof(proof)
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno}: this is no JSON: {error.msg}") from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"this is no proof that `swapgate proof export` wrote: {error}"
        ) from None
    if written != text:
        raise InputError(f"line {_first_difference(written, text)}: this was changed")
    return proof


def _first_difference(written: str, text: str) -> int:
    pairs = zip(written.splitlines(), text.splitlines(), strict=False)
    unlike = (number for number, (one, other) in enumerate(pairs, 1) if one != other)
    return next(unlike, min(written.count("\n"), text.count("\n")) + 1)
