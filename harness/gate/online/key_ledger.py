"""The key ledger records which keys a rollout has counted before (statistics.md §2.12): in this
period, in an earlier period, or never. It stores only fingerprints of keys.

Fingerprints are spread over pages, so that a claim of a few keys reads and writes few bytes:
`page_of` returns a fingerprint's page; `claim_keys` enters a block's keys and returns their
history. The ledger never reads outcomes: it excludes keys by their history, in both arms alike.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

from harness.frame.plain_data import short_hash

# 12 of a fingerprint's 44 bits select the page; the page stores the other 32.
PAGES: Final = 4096
# Limits the ledger of one rollout to 2 million keys, 12.6 MB.
KEYS_PER_PAGE: Final = 512
_ENTRY: Final = Struct(">IH")
_LAST_PERIOD: Final = 0xFFFF


class KeyHistory(IntEnum):
    NEVER_SEEN = 0
    RETURNED = 1  # in an earlier period
    COUNTED = 2  # in this period, by another process or before a restart


class KeyClaim(NamedTuple):
    rollout: str
    period: int
    fingerprints: Sequence[int]


def fingerprint(salt: str, key: str | int) -> int:
    """Computes a key's fingerprint. key: sticky key, or its short hash. salt: the rollout's."""
    digest = short_hash(key) if isinstance(key, str) else key.to_bytes(8)
    return int.from_bytes(blake2b(digest, digest_size=6, key=salt.encode()[:64]).digest()) >> 4


def page_of(print_: int) -> int:
    return print_ >> 32


def claim_keys(
    pages: Mapping[int, bytes], claim: KeyClaim
) -> tuple[Mapping[int, bytes], Sequence[KeyHistory]]:
    """Enters a claim's keys; returns the changed pages, and each key's earlier history.

    pages: the existing pages of these keys. If a key's page is full, the key is not entered and
    counts as returned, so it adds nothing to the evidence that periods carry over.
    """
    period = min(claim.period, _LAST_PERIOD)
    read = {number: _entries(page) for number, page in pages.items()}
    found, changed = [], set[int]()
    for print_ in claim.fingerprints:
        number, rest = page_of(print_), print_ & 0xFFFFFFFF
        page = read.setdefault(number, {})
        last = page.get(rest)
        if last is not None and last >= period:
            found.append(KeyHistory.COUNTED)
            continue
        if last is None and len(page) >= KEYS_PER_PAGE:
            found.append(KeyHistory.RETURNED)
            continue
        found.append(KeyHistory.NEVER_SEEN if last is None else KeyHistory.RETURNED)
        page[rest] = period
        changed.add(number)
    return {number: _page(read[number]) for number in sorted(changed)}, found


def _entries(page: bytes) -> dict[int, int]:
    """Returns the last period of each key of a page; ignores an incomplete entry at the end."""
    whole = len(page) - len(page) % _ENTRY.size
    return dict(_ENTRY.iter_unpack(page[:whole]))


def _page(entries: Mapping[int, int]) -> bytes:
    return b"".join(_ENTRY.pack(rest, period) for rest, period in entries.items())
