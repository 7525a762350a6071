"""The scorers by name. A scorer scores an answer by its item and the suite's options."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from evals.scorers.assertions import ASSERTIONS, JUDGED_ASSERTIONS
from evals.scorers.code import CODE
from evals.scorers.instructions import INSTRUCTIONS
from evals.scorers.interface import (
    AnswerJudge,
    AnswerToolCall,
    NotJudged,
    Options,
    Scorer,
    ScoreResult,
)
from evals.scorers.json_fields import JSON_FIELDS, JSON_SCHEMA
from evals.scorers.judged import PAIRWISE, RUBRIC
from evals.scorers.preference import PREFERENCE
from evals.scorers.short_answers import CHOICE, EXACT, LABEL, NUMERIC, REGEX
from evals.scorers.tool_calls import TOOL_CALL
from harness.frame.errors import NotFound
from harness.frame.plain_data import digest, hash_content
from harness.frame.suggestions import did_you_mean

__all__ = [
    "SCORERS",
    "AnswerJudge",
    "AnswerToolCall",
    "NotJudged",
    "Options",
    "ScoreResult",
    "Scorer",
    "find_scorer",
    "scorer_identity",
]

# The prefix of our packages: empty in the checkout, `swapproof.` in a wheel.
ABOVE: Final = __name__.removesuffix("evals.scorers")
SCORERS: Final[Mapping[str, Scorer]] = {
    scorer.name: scorer
    for scorer in (
        *(EXACT, NUMERIC, CHOICE, LABEL, REGEX, JSON_FIELDS, JSON_SCHEMA, TOOL_CALL),
        *(INSTRUCTIONS, CODE, RUBRIC, PAIRWISE, PREFERENCE, ASSERTIONS, JUDGED_ASSERTIONS),
    )
}


def find_scorer(name: str) -> Scorer:
    try:
        return SCORERS[name]
    except KeyError:
        known = "; there are: " + ", ".join(SCORERS)
        hint = did_you_mean(name, SCORERS, otherwise=known, cutoff=0.4)
        raise NotFound(f"no scorer {name!r}{hint}") from None


def scorer_identity(scorer: Scorer, options: Options) -> str:
    """Returns name, hash of the scoring code and hash of the options: `numeric@3f0c…/9a1b…`."""
    decides = scorer.judged or scorer.sandboxed or scorer.score
    code, chosen = _code_sha256(decides.__module__), digest(dict(options))
    return f"{scorer.name}@{code[:12]}/{chosen[:8]}"


@cache
def _code_sha256(module: str) -> str:
    """Hashes a scorer's module with all modules of this package that it imports."""
    seen: dict[str, str] = {}
    todo = [module.removeprefix(ABOVE)]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        # `sys.modules` may lack a module that is imported late.
        file = Path(str(getattr(find_spec(f"{ABOVE}{name}"), "origin", None)))
        source = _source(file)
        seen[name] = source
        todo += [
            imported
            for imported in list_imported_from(source)
            if imported.startswith("evals.scorers.")
        ]
    return hash_content("\n".join(seen[name] for name in sorted(seen)))


def list_imported_from(source: str) -> list[str]:
    """Lists the modules in `from … import` by a pattern, because a parser is too slow."""
    return _IMPORTED_FROM.findall(source)


_IMPORTED_FROM: Final = re.compile(r"^[ \t]*from ([\w.]+) import\b", re.MULTILINE)


def _source(file: Path) -> str:
    """Returns the source as in the checkout, without a wheel's `swapproof.` (ADR 0030)."""
    return file.read_text(encoding="utf-8").replace(f"from {ABOVE}", "from ")
