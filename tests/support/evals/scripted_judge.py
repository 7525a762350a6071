"""`ScriptedJudge` answers by a test's function, and keeps the prompts."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evals.scorers import NotJudged
from evals.scorers.judged import DATA

Says = Callable[[Mapping[str, Any]], object]


@dataclass
class ScriptedJudge:
    """says: from the data that are judged to its answer, JSON or a text; None: it is away."""

    says: Says
    attempts: int = 3
    spent: str = ""
    asked: list[str] = field(default_factory=list)

    async def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        prompt = messages[-1]["content"]
        self.asked.append("\n".join(message["content"] for message in messages))
        said = self.says(json.loads(prompt.rpartition(DATA)[2]))
        if said is None:
            raise NotJudged("the judge did not answer: HTTP 503")
        return said if isinstance(said, str) else json.dumps(said)

    async def close(self) -> None:
        """Nothing is open."""
