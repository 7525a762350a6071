"""Makes one of the product's own functions within a piece of work raise."""

import gc
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

OURS: Final = ("router.", "harness.")


class Injected(Exception):
    """Raised where code of ours stood."""


@dataclass
class Break:
    """code: that raises instead. times: so often, None for always. within: only while this
    runs, None for anywhere. struck: how often it did.
    """

    code: CodeType
    times: int | None
    within: CodeType | None
    struck: int = 0
    functions: list[FunctionType] = field(default_factory=list)

    def call(self, *args: Any, **named: Any) -> Any:
        if self.within is not None and not _runs(self.within):
            first = self.functions[0]
            own = FunctionType(self.code, first.__globals__, closure=first.__closure__)
            own.__defaults__ = first.__defaults__
            own.__kwdefaults__ = first.__kwdefaults__
            return own(*args, **named)
        self.struck += 1
        if self.times is not None and self.struck >= self.times:
            self.mend()
        raise Injected(self.code.co_qualname)

    def mend(self) -> None:
        for function in self.functions:
            function.__code__ = self.code


_now: list[Break] = []


Found = dict[CodeType, list[FunctionType]]


async def calls_within(outer: CodeType, work: Callable[[], Awaitable[Any]]) -> Found:
    """The code of ours that is called while `outer` runs, or by what it awaits; each with its
    functions. What is made anew at each call, such as a comprehension, is not in it.
    """
    types: set[CodeType] = set()

    def see(
        frame: FrameType,
        event: str,
        _: object,
    ) -> None:
        module = str(frame.f_globals.get("__name__"))
        ours = module.startswith(OURS) and frame.f_code.co_filename[0] != "<"
        if event == "call" and ours and frame.f_code not in types and _runs(outer):
            types.add(frame.f_code)

    sys.setprofile(see)
    try:
        await work()
    finally:
        sys.setprofile(None)
    made: Found = {}
    # What was frozen after collection is not among the collector's objects.
    gc.unfreeze()
    for object_ in gc.get_objects():
        if isinstance(object_, FunctionType) and object_.__code__ in types:
            made.setdefault(object_.__code__, []).append(object_)
    return made


def _runs(code: CodeType) -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def module_of(code: CodeType) -> str:
    path = code.co_filename.removesuffix(".py").split("/")
    root = max(at for at, name in enumerate(path) if name in ("router", "harness"))
    return ".".join(path[root:])


def name_of(code: CodeType) -> str:
    return f"{module_of(code)}:{code.co_qualname}"


@contextmanager
def broken(
    code: CodeType,
    functions: list[FunctionType],
    *,
    times: int | None = None,
    within: CodeType | None = None,
) -> Iterator[Break]:
    """Every function with this code raises instead.

    Args:
        times: as `Break` has it.
        within: as `Break` has it.
    """
    found = Break(code, times, within, functions=functions)
    _now.append(found)
    for function in found.functions:
        function.__code__ = _raising(len(code.co_freevars))
    try:
        yield found
    finally:
        found.mend()
        _now.remove(found)


def instead(*args: Any, **named: Any) -> Any:
    """Called by the broken code."""
    return _now[-1].call(*args, **named)


def _raising(free: int) -> CodeType:
    """Of a function that closes over so many names, as the one that it stands for does."""
    names = "".join(f"_{number}, " for number in range(free))
    source = f"""
def make({names}):
    def raising(*args, **kwargs):
        ({names})
        return __import__("sys").modules[{__name__!r}].instead(*args, **kwargs)
    return raising
"""
    made: dict[str, Any] = {}
    exec(source, made)  # noqa: S102 - a code object with so many free names
    code: CodeType = made["make"](*[None] * free).__code__
    return code
