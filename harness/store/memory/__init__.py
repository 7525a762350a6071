"""The store in memory: a working twin for tests and for trying things out."""

from harness.store.memory.store import MemoryStore

__all__ = ["MemoryStore"]
