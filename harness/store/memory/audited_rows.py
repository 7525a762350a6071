"""Of a store in memory nothing is recorded by digest: nobody can write around its process."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime


class MemoryAuditedRows:
    def page(self, after: str = "", limit: int = 0) -> Sequence[tuple[str, str]]:  # noqa: ARG002 - the port's signature
        return ()

    def digests(self, rows: Collection[str]) -> Mapping[str, str | None]:  # noqa: ARG002 - the port's signature
        return {}

    def deciding(self) -> Mapping[str, str]:
        return {}

    def serving(self) -> Mapping[str, str]:
        return {}

    def take_over(self, now: datetime) -> int:  # noqa: ARG002 - the port's signature
        return 0
