"""Reads policies, plans and suite reports from their JSON columns, those of older versions with
the defaults of then; writes reports.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Any, Final

from harness.domain.canary.guardrails import Guardrails
from harness.domain.canary.unit_rule import CanaryJudge, ExposureUnit
from harness.domain.errors import NewerVersion
from harness.domain.evals.pins import ServedPin
from harness.domain.evals.suite_plan import (
    Claim,
    ClaimPopulation,
    GateRule,
    PrimaryCombination,
    SuiteRole,
)
from harness.domain.evals.verdict import SuiteReport
from harness.domain.newer_fields import NewerFields, describe_newer
from harness.domain.proposals.change_reference import ChangeReferenceRule
from harness.domain.proposals.policy import (
    AlphaSpending,
    CanaryPolicy,
    CanaryStep,
    EvidenceRule,
    GatePolicy,
    PeakHours,
    Policy,
    PromotionMode,
    ShadowStagePolicy,
)
from harness.store.schema.columns import JsonIn


def policy_from_json(data: JsonIn) -> Policy:
    """What only a newer version knows is kept in `newer`; nothing is decided then, and a value
    of it reads as the strictest that this version has.
    """
    reader = NewerFields()
    reference = data.get("change_reference", ChangeReferenceRule.OPTIONAL)
    return Policy(
        **{
            **reader.known(Policy, data),
            "promotion": reader.member(
                PromotionMode, data["promotion"], "promotion", otherwise=PromotionMode.APPROVED
            ),
            "change_reference": reader.member(
                ChangeReferenceRule,
                reference,
                "change_reference",
                otherwise=ChangeReferenceRule.REQUIRED,
            ),
            "gate": _gate_policy(data["gate"], reader),
            "canary": canary_policy_from_json(data["canary"]),
            "newer": reader.found,
        }
    )


# Registrations older than the rule of spending made no promise about repeats, and those older
# than the pin of what is served compare nothing.
_OLDER_GATE: Final[Mapping[str, StrEnum]] = {
    "spend": AlphaSpending.NONE,
    "served_pin": ServedPin.NONE,
    "primaries": PrimaryCombination.WEIGHTED,
    "rule": GateRule.PAIRED,
    "population": ClaimPopulation.LIKE_THESE,
}


def _gate_policy(data: JsonIn, newer: NewerFields) -> GatePolicy:
    known, claims = newer.known(GatePolicy, data, "gate."), data.get("claims")
    read: dict[str, Any] = {
        name: newer.member(type(older), data.get(name, older), f"gate.{name}", otherwise=older)
        for name, older in _OLDER_GATE.items()
    }
    read["claim"] = newer.member(Claim, data["claim"], "gate.claim", otherwise=Claim.SUPERIOR)
    read["claims"] = tuple(Claim) if claims is None else _claims(claims, newer)
    return GatePolicy(**{**known, **read})


def _claims(claims: Sequence[str], newer: NewerFields) -> tuple[Claim, ...]:
    known = tuple(Claim(claim) for claim in claims if claim in set(Claim))
    if len(known) < len(claims):
        newer.found["gate.claims"] = claims
    return known


def canary_policy_from_json(data: JsonIn) -> CanaryPolicy:
    """Rollouts older than the guardrails are guarded by errors alone, at the control plane."""
    reader = NewerFields()
    guardrails, shadow = data.get("guardrails"), data.get("shadow")
    judge, known = data.get("judge"), reader.known
    evidence = data.get("evidence", EvidenceRule.EVEN)
    read = {
        "evidence": reader.member(
            EvidenceRule, evidence, "evidence", otherwise=EvidenceRule.EVEN
        ),
        "steps": tuple(
            CanaryStep(**known(CanaryStep, step, f"steps.{place}."))
            for place, step in enumerate(data["steps"])
        ),
        "peak": PeakHours(**known(PeakHours, data.get("peak", {}), "peak.")),
        # Older rollouts did not bake.
        "bake_s": data.get("bake_s", 0.0),
        "shadow": ShadowStagePolicy(**known(ShadowStagePolicy, shadow, "shadow."))
        if shadow
        else None,
        "judge": CanaryJudge(**known(CanaryJudge, judge, "judge.")) if judge else None,
        "unit": reader.member(
            ExposureUnit, data["unit"], "unit", otherwise=ExposureUnit.FIRST_REQUEST
        ),
        "local_alpha": data.get("local_alpha", 0.0),
        "guardrails": Guardrails(**known(Guardrails, guardrails, "guardrails."))
        if guardrails
        else Guardrails.none(),
    }
    return CanaryPolicy(**{**known(CanaryPolicy, data), **read, "newer": reader.found})


def reports_to_json(reports: Iterable[SuiteReport]) -> list[dict[str, Any]]:
    return [{k: _finite(v) for k, v in asdict(report).items()} for report in reports]


def reports_from_json(data: Iterable[JsonIn], subject: str) -> tuple[SuiteReport, ...]:
    """Reads a verdict's reports. subject: the verdict, for people. Raises NewerVersion for what
    is unknown here.
    """
    newer = NewerFields()
    reports = tuple(_report(report, newer, f"suites.{n}.") for n, report in enumerate(data))
    names = (
        f"{path}: {value}" if path.endswith(_CHOICES) else path
        for path, value in newer.found.items()
    )
    if unknown := describe_newer(names, subject):
        raise NewerVersion(unknown)
    return reports


_CHOICES: Final = (".role", ".claim")


def _report(data: JsonIn, newer: NewerFields, path: str) -> SuiteReport:
    known = newer.known(SuiteReport, data, path)
    values: dict[str, Any] = {k: _number(v) if k in _FIGURES else v for k, v in known.items()}
    values |= {
        "role": newer.member(SuiteRole, data["role"], f"{path}role", otherwise=SuiteRole.GUARD),
        "claim": newer.member(Claim, data["claim"], f"{path}claim", otherwise=Claim.SUPERIOR),
        "flags": tuple(data["flags"]),
    }
    return SuiteReport(**values)


# JSON has no infinity, and the evidence against a certain loser is infinite.
_FIGURES = frozenset({"delta", "ci_low", "ci_high", "log_e", "log_e_bad", "p_final", "margin"})


def _finite(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: object) -> object:
    return float(value) if isinstance(value, str) else value
