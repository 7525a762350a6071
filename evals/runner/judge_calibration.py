"""Measures a judge's agreement with people (Cohen's kappa on references that they scored)
before it scores answers (F7). Below the suite's floor the run is refused; measurements are
cached in files.
"""

import asyncio
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from evals.scorers import AnswerJudge, NotJudged
from evals.suites.judge_references import Reference, load_references
from evals.suites.suite import Suite
from harness.domain.content_hash import digest
from harness.domain.errors import JudgeUnfit
from harness.domain.settings import JudgeSettings, SuiteSettings
from harness.gate.offline.kappa import RaterAgreement, cohens_kappa
from harness.ports import Clock

ABSTAINED = -1  # a category of its own: no person's


@dataclass(frozen=True, slots=True)
class CalibrationCache:
    """Keeps how far judges agreed with people, in one small file for each pin in a folder of
    this machine.
    """

    folder: Path
    clock: Clock

    def recent(self, key: str, max_age_s: float) -> RaterAgreement | None:
        """Loads the newest calibration; None when there is none so new, or it cannot be
        read.
        """
        now = self.clock.now().timestamp()
        try:
            found = json.loads(self._file(key).read_text(encoding="utf-8"))
            # A clock that was set back must not make an old one good for ever.
            fresh = now - max_age_s < found.pop("at") <= now
            return RaterAgreement(**found) if fresh else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def keep(self, key: str, agreement: RaterAgreement) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Another worker may write the same measurement just now.
        part = self._file(key).with_suffix(f".{os.getpid()}.part")
        noted = {**asdict(agreement), "at": self.clock.now().timestamp()}
        part.write_text(json.dumps(noted), encoding="utf-8")
        part.replace(self._file(key))

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def score_band(score: float | None, levels: int) -> int:
    """Returns which of so many equal bands of [0, 1] a score is in; the highest one has both
    its ends.
    """
    return ABSTAINED if score is None else min(int(score * levels), levels - 1)


async def measure_judge(
    suite: Suite,
    judging: AnswerJudge,
    *,
    checks: CalibrationCache | None,
    connections: int,
) -> RaterAgreement | None:
    """Returns how far the judge agrees with people, measured now or lately; None for a suite
    without references.

    checks: where measurements are kept; None for nowhere. Raises JudgeUnfit where the judge
    cannot be asked.
    """
    judge = suite.settings.judge
    if judge is None or judge.references is None:
        return None
    found = checks.recent(_key(suite), judge.recheck_s) if checks else None
    if found is None:
        try:
            found = await _measured(suite, judging, judge, connections)
        except NotJudged as error:
            raise JudgeUnfit(
                f"suite {suite.settings.name}: its judge could not be checked: {error}"
            ) from None
        if checks:
            checks.keep(_key(suite), found)
    return found


def _key(suite: Suite) -> str:
    """Of what the agreement depends on: the scorer's pin holds rubric, judge and references."""
    return digest([suite.pin.name, suite.pin.scorer])[:24]


async def _measured(
    suite: Suite, judging: AnswerJudge, judge: JudgeSettings, connections: int
) -> RaterAgreement:
    assert judge.references is not None  # noqa: S101 - confirm_agreement has looked
    references = load_references(judge.references)
    gate = asyncio.Semaphore(connections)

    async def rated(reference: Reference) -> tuple[float, float | None] | NotJudged:
        async with gate:
            try:
                found = await suite.judged(reference.answer, reference.item, judging)
            except NotJudged as error:
                return error
        return reference.score, found.strict

    scored: list[tuple[float, float | None]] = []
    for rating in await asyncio.gather(*map(rated, references)):
        if isinstance(rating, NotJudged):
            raise rating
        scored.append(rating)
    bands = [
        (score_band(people, judge.levels), score_band(ours, judge.levels))
        for people, ours in scored
    ]
    return cohens_kappa(bands)


def agreement_text(suite: SuiteSettings, agreement: RaterAgreement) -> str:
    """The figure as people read it."""
    assert suite.judge is not None  # noqa: S101 - confirm_agreement has looked
    if agreement.kappa is None or agreement.low is None or agreement.high is None:
        return (
            f"suite {suite.name}: the {agreement.n} references and the judge "
            f"{suite.judge.target.name} all have the same score, so agreement cannot be "
            "estimated; add references with other scores"
        )
    return (
        f"suite {suite.name}: on {agreement.n} human references the judge "
        f"{suite.judge.target.name} has Cohen's kappa {agreement.kappa:.2f} (95 % interval "
        f"{agreement.low:.2f} to {agreement.high:.2f}), the floor is "
        f"{suite.judge.min_agreement:.2f}"
    )


def demand_agreement(suite: SuiteSettings, agreement: RaterAgreement) -> None:
    """Refuses a judge below the suite's floor: raises JudgeUnfit, with the figure in words."""
    judge = suite.judge
    assert judge is not None  # noqa: S101 - somebody has measured it
    if agreement.kappa is None:
        raise JudgeUnfit(agreement_text(suite, agreement))
    if agreement.kappa < judge.min_agreement:
        raise JudgeUnfit(
            f"{agreement_text(suite, agreement)}; fix the rubric or take another judge"
        )
