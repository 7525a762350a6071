"""`InlineWorkers` runs an eval worker to its end in the call that starts it."""

from collections.abc import Callable, Mapping, Sequence

Work = Callable[[str, str], None]
"""(run, owner) → works on the run; raises when the worker dies."""


class InlineWorkers:
    def __init__(self, work: Work) -> None:
        self._work = work
        self._started = 0
        self._ended: list[tuple[str, str, int, str]] = []

    def start(self, run: str) -> str:
        self._started += 1
        owner = f"inline-{self._started}"
        try:
            self._work(run, owner)
        except Exception as death:  # noqa: BLE001 - whatever it is, the worker is dead
            self._ended.append((run, owner, 1, str(death)))
        else:
            self._ended.append((run, owner, 0, ""))
        return owner

    def alive(self) -> Mapping[str, str]:
        return {}

    def reap(self) -> Sequence[tuple[str, str, int, str]]:
        ended = self._ended
        self._ended = []
        return ended

    def stop(self, run: str) -> None:
        """Nothing to do: a started worker has ended already."""

    def stop_all(self) -> None:
        """Nothing to do: a started worker has ended already."""
