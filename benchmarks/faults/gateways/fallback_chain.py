"""What every gateway is given: the providers' addresses and the same limits of time."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from benchmarks.faults.catalogue import Place
from benchmarks.router.peers.peer import Site

SPARE: Final = "spare"
# What another provider may answer. Not 400, 413, 422: those are the client's.
FAILOVER_STATUSES: Final = (401, 402, 403, 404, 408, 429, 500, 502, 503, 504, 529)
REPEATABLE: Final = (429, 500, 502, 503, 504, 529)


class Limits(NamedTuple):
    """Seconds that one target may take."""

    first_token_s: float = 2.0
    between_chunks_s: float = 1.0
    answer_s: float = 3.0

    @property
    def total_s(self) -> float:
        """Of a request: two targets, each with its time for a whole answer."""
        return 2 * self.answer_s


LIMITS: Final = Limits()


def addresses(site: Site) -> Mapping[str, str]:
    """Base URL by place, and of the fallback."""
    primary = site.upstreams[Place.PRIMARY]
    return {
        Place.PRIMARY: f"http://127.0.0.1:{primary}/v1",
        Place.REFUSED: "http://127.0.0.1:1/v1",
        # Portkey refuses a name that ends in .invalid.
        Place.NO_NAME: "http://no-such-host.example/v1",
        Place.NO_TLS: f"https://127.0.0.1:{primary}/v1",
        SPARE: f"http://127.0.0.1:{site.upstreams[SPARE]}/v1",
    }
