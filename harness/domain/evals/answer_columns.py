"""Answer columns hold the figures of many answers, a column each: what sums, quantiles and
pairs are made of, without the texts and without an object for each answer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import chain, compress
from typing import Final, Self

from harness.domain.evals.pins import ServedModel
from harness.domain.evals.run import Sample, SampleError


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """The figures of answers in any order. Each column is a field of `Sample`."""

    item: Sequence[str] = ()
    epoch: Sequence[int] = ()
    position: Sequence[int] = ()
    strict: Sequence[float | None] = ()
    error: Sequence[str | None] = ()
    duration_s: Sequence[float] = ()
    cost_usd: Sequence[float | None] = ()
    input_tokens: Sequence[int] = ()
    output_tokens: Sequence[int] = ()
    cached_tokens: Sequence[int] = ()
    judge_calls: Sequence[int] = ()
    judge_cost_usd: Sequence[float | None] = ()
    served_model: Sequence[str] = ()
    served_build: Sequence[str] = ()
    judge_model: Sequence[str] = ()
    judge_build: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.item)

    @classmethod
    def from_rows(cls, rows: Iterable[Iterable[object]]) -> Self:
        """Turns rows with the values of `COLUMNS` into columns."""
        columns: Iterable[Sequence[object]] = zip(*rows, strict=True)
        return cls(*columns)  # type: ignore[arg-type]

    @classmethod
    def from_samples(cls, samples: Sequence[Sample]) -> Self:
        return cls(*([getattr(sample, name) for sample in samples] for name in COLUMNS))

    @classmethod
    def join(cls, parts: Iterable[Self]) -> Self:
        """Joins the answers of several runs."""
        filled = [part for part in parts if len(part)]
        if len(filled) == 1:
            return filled[0]
        return cls(
            *(list(chain(*(getattr(part, name) for part in filled))) for name in COLUMNS)
        )

    def split_at(self, position: int) -> tuple[Self, Self]:
        """Splits the answers to the first items of the run's order from those to the others."""
        if not self.position or max(self.position) < position:
            return self, type(self)()
        first = [place < position for place in self.position]
        return self._pick(first), self._pick([not wanted for wanted in first])

    @property
    def answered(self) -> Self:
        """Keeps the calls that were answered: no error of the infrastructure ended them."""
        if SampleError.INFRA not in self.error:
            return self
        return self._pick([error != SampleError.INFRA for error in self.error])

    @property
    def served(self) -> frozenset[ServedModel]:
        """Names what the provider said that it served."""
        return _models(self.served_model, self.served_build)

    @property
    def judges(self) -> frozenset[ServedModel]:
        """The same of the judge's provider."""
        return _models(self.judge_model, self.judge_build)

    def _pick(self, wanted: Sequence[bool]) -> Self:
        return type(self)(*(list(compress(getattr(self, name), wanted)) for name in COLUMNS))


COLUMNS: Final = tuple(column.name for column in fields(AnswerColumns))


def _models(names: Sequence[str], builds: Sequence[str]) -> frozenset[ServedModel]:
    return frozenset(
        ServedModel(name, build) for name, build in set(zip(names, builds, strict=True))
    )
