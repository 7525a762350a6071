"""What a fallback chain may be, and what a target needs to come into one (A4, A7). Pure."""

from collections.abc import Sequence
from typing import assert_never

from harness.domain.errors import InputError, ProofRefused
from harness.domain.evals.run import Passed
from harness.domain.routing.evidence import ChainProof, FormerTarget, Waiver


def check_chain(
    route: str, incumbent: str, fallbacks: Sequence[str], capable: Sequence[str]
) -> None:
    """Raises InputError for a target named twice, and for a capable one that is no fallback."""
    whole = (incumbent, *fallbacks)
    if len(set(whole)) < len(whole):
        raise InputError(f"route {route!r} names a target twice: {', '.join(whole)}")
    stray = set(capable) - set(fallbacks)
    if stray:
        raise InputError(
            f"route {route!r}: only fallbacks are marked capable, and these are none: "
            f"{', '.join(sorted(stray))}"
        )


def check_chain_proof(route: str, target: str, proof: ChainProof | None) -> None:
    """Raises ProofRefused unless it is for this target on this route."""
    match proof:
        case None:
            raise ProofRefused(
                f"route {route!r}: {target} is new in the chain and has no proof: "
                "a passed verdict of this route, or a waiver"
            )
        case Passed():
            fits = (proof.route, proof.candidate) == (route, target)
        case Waiver():
            fits = (proof.route, proof.target) == (route, target)
        case FormerTarget():
            fits = proof.target == target
        case _:
            assert_never(proof)
    if not fits:
        raise ProofRefused(
            f"route {route!r}: the proof brought for {target} is another target's or route's"
        )
