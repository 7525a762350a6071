"""Keeps each key's rate state: in one process, or in a file that all workers share.

The file is read and written, not mapped, so that a full disk is an error and not a crash.
This module only stores states. `harness.frame.people.limits` computes them, and `admission`
decides by them.
"""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import Final

from harness.frame.people import limits
from harness.frame.people.limits import RateDecision, RateLimit, RateState
from harness.frame.plain_data import short_hash
from harness.frame.ports import RateBook

log = logging.getLogger(__name__)

# The routers' file, in the folder for state.
BOOK: Final = "rates.book"
Change = Callable[[RateState], RateState]

# A slot contains the name of a key and its state.
SLOT: Final = Struct("16sdd")
STATE: Final = Struct("dd")
SLOTS: Final = 16_384
PROBES: Final = 64
FREE: Final = bytes(16)
_UNUSED: Final = RateState()
# How long to wait for a slot, which a worker locks for microseconds. If a worker stops while it
# holds the lock, the others continue without it, and may lose an update.
LOCK_S: Final = 0.002
PAUSE_S: Final = 0.00005


class LocalRates:
    """Keeps the rate state of any number of keys for one process."""

    def __init__(self) -> None:
        self._states: dict[str, RateState] = {}

    def change(self, key: str, change: Change) -> RateState:
        before = self._states.get(key, _UNUSED)
        self._states[key] = change(before)
        return before

    def close(self) -> None: ...


class SharedRates:
    """Keeps rate states in a file that all workers share.

    The first process to open the file clears it, because the machine's clock may have
    restarted. No change is lost, unless a process stops in the middle of a change. This process
    alone counts keys without a slot, and all keys while the disk fails. Raises OSError if the
    file cannot be created.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._users = os.open(file.with_suffix(".users"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._file = self._open_file(file)
        except OSError:
            os.close(self._users)
            raise
        self._places: dict[str, int] = {}
        self._local = LocalRates()
        self._has_warned = False

    def change(self, key: str, change: Change) -> RateState:
        try:
            place = self._places.get(key)
            if place is None:
                place = self._places[key] = self._find_place(key)
            is_locked = self._try_lock(place) or self._wait_for_lock(place)
            try:
                before = RateState(*STATE.unpack(os.pread(self._file, STATE.size, place)))
                os.pwrite(self._file, STATE.pack(*change(before)), place)
            finally:
                if is_locked:
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)
        except OSError as error:
            self._warn_once(error)
            return self._local.change(key, change)
        return before

    def close(self) -> None:
        os.close(self._file)
        os.close(self._users)

    def _open_file(self, file: Path) -> int:
        """Each process locks a second file while it lives; a process that finds no other lock
        clears the states.
        """
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, SLOTS * SLOT.size)
            fcntl.flock(self._users, fcntl.LOCK_SH)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _find_place(self, key: str) -> int:
        """Returns the byte offset of a key's state, and takes a free slot for a new key.

        Raises OSError if PROBES slots are taken, or another worker holds the file's lock
        too long.
        """
        name = short_hash(key, len(FREE))
        if not (self._try_lock(0) or self._wait_for_lock(0)):
            raise OSError(errno.EAGAIN, "another worker is busy with it")
        try:
            for slot in _iter_slots(name):
                slot_name, *_ = SLOT.unpack(os.pread(self._file, SLOT.size, slot))
                if slot_name == FREE:
                    os.pwrite(self._file, name, slot)
                if slot_name in (FREE, name):
                    return slot + len(FREE)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)
        raise OSError(errno.ENOSPC, "no slot is left")

    def _wait_for_lock(self, place: int) -> bool:
        """Waits up to LOCK_S for the lock of one byte; returns whether this process has it."""
        until = time.monotonic() + LOCK_S
        while time.monotonic() < until:
            time.sleep(PAUSE_S)
            if self._try_lock(place):
                return True
        return False

    def _try_lock(self, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _warn_once(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("this process alone counts the rates of keys: %s", error)


def _iter_slots(name: bytes) -> Iterator[int]:
    """Yields the byte offsets of the slots in which a name may be: linear probing, PROBES
    slots.
    """
    first = int.from_bytes(name[:8])
    return ((first + probe) % SLOTS * SLOT.size for probe in range(PROBES))


def take_tokens(
    book: RateBook,
    key: str,
    limit: RateLimit,
    tokens: float,
    now: float,
) -> RateDecision:
    """Takes a request and its tokens from a key's rate, if the limit allows it.

    Args:
        now: monotonic seconds.

    A refused request takes nothing.
    """
    decisions: list[RateDecision] = []

    def change(state: RateState) -> RateState:
        decisions.append(limits.admit_request(state, limit, tokens, now))
        return decisions[-1].state

    book.change(key, change)
    return decisions[-1]
