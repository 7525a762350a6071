"""`ifeval`: the public IFEval set, strict and loose as its authors score it.

The target is the object with `instruction_id_list` and `kwargs` (target_field:
`instruction_id_list+kwargs`). An item with an instruction that we cannot check is left out of
the suite and counted there.
"""

from typing import Any, cast

from evals.scorers.ifeval_rules import KINDS, unsupported
from evals.scorers.interface import UNSCORED, Options, Scorer, ScoreResult, score_result
from evals.suites.items import Item
from harness.domain.errors import InputError


def pairs(item: Item) -> list[tuple[str, dict[str, Any]]]:
    """(instruction, parameters). Raises InputError when the target is not IFEval's."""
    target = item.target
    kinds = target.get("instruction_id_list") if isinstance(target, dict) else None
    params = target.get("kwargs") if isinstance(target, dict) else None
    if (
        not isinstance(kinds, list)
        or not isinstance(params, list)
        or not kinds
        or len(kinds) != len(params)
        or not all(isinstance(each, dict) for each in params)
    ):
        raise InputError(
            f"item {item.id!r}: scorer 'ifeval' needs target_field "
            "'instruction_id_list+kwargs', two lists of the same length"
        )
    return list(zip(cast("list[str]", kinds), params, strict=True))


def loosened(answer: str) -> list[str]:
    """Without its first line, its last line, both; each with and without asterisks."""
    lines = answer.split("\n")
    cuts = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [text for cut in cuts for text in (cut, cut.replace("*", "")) if text.strip()]


def ifeval(answer: str, item: Item, options: Options) -> ScoreResult:
    """1 if every instruction is followed, else 0; with `graded` the share of them."""
    if not answer.strip():
        return UNSCORED
    told = pairs(item)
    strict = [KINDS[kind](answer, params) for kind, params in told]
    loose = [
        kept or any(KINDS[kind](text, params) for text in loosened(answer))
        for kept, (kind, params) in zip(strict, told, strict=True)
    ]

    def score(kept: list[bool]) -> float:
        return sum(kept) / len(kept) if options["graded"] else float(all(kept))

    broken = [
        kind
        for (kind, _), kept, forgiven in zip(told, strict, loose, strict=True)
        if forgiven and not kept
    ]
    return score_result(score(strict), score(loose), broken[0] if broken else "")


def check(item: Item, _options: Options) -> str | None:
    """Raises InputError for a target that is not IFEval's."""
    reasons = [unsupported(kind, params) for kind, params in pairs(item)]
    return next((reason for reason in reasons if reason), None)


IFEVAL = Scorer("ifeval", ifeval, {"graded": False}, check=check)
