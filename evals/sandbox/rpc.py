"""The sandbox's two processes call each other's functions over a pipe, by JSON lines.

The answer's end does what it is asked with its own objects. The tests' end hands out functions
alone, to be called and nothing else. Standard library alone.
"""

import builtins
import importlib
import inspect
import json
import operator
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, BinaryIO, Final

from evals.sandbox.plain_values import NotPlain, StandIn, decode, encode

LONGEST_LINE: Final = 8 * 2**20
# What may be asked of an object of the answer's, by the name of the special method.
OPERATIONS: Final[Mapping[str, Callable[..., object]]] = {
    "__call__": lambda target, *args, **kwargs: target(*args, **kwargs),
    "__getattr__": getattr,
    "__setattr__": setattr,
    "__getitem__": operator.getitem,
    "__setitem__": operator.setitem,
    "__delitem__": operator.delitem,
    "__len__": len,
    "__iter__": iter,
    "__next__": next,
    "__bool__": bool,
    "__str__": str,
    "__repr__": repr,
    "__hash__": hash,
    "__abs__": abs,
    "__neg__": operator.neg,
    "__enter__": lambda target: type(target).__enter__(target),
    "__exit__": lambda target, *args: type(target).__exit__(target, *args),
    **{
        f"__{name}__": getattr(operator, f"__{name}__")
        for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
    },
    **{f"__{name}__": getattr(operator, f"__{name}__") for name in ("lt", "le", "gt", "ge")},
}
# Arithmetic with a value of ours, and of one object alone, gives an object again: an answer
# must not say of itself that its distance from what is expected is 0.
ARITHMETIC: Final = frozenset(
    {"__add__", "__sub__", "__mul__", "__truediv__", "__floordiv__", "__mod__", "__pow__"}
    | {"__matmul__", "__abs__", "__neg__"}
)
# Asked only where both are objects of the answer's: an answer must not say of itself that it
# is below every limit.
ORDERING: Final = frozenset({"__lt__", "__le__", "__gt__", "__ge__"})
CHANGEABLE: Final = (list, dict, set, bytearray)


class OtherSideFailed(Exception):
    """Raised when the other process ended, or said what makes no sense."""


class Peer:
    """Talks to the other process. names: the globals that the other side may ask for by name;
    None for none of them.
    """

    def __init__(
        self, reader: BinaryIO, writer: BinaryIO, names: dict[str, Any] | None = None
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._names = names
        self._kept: list[object] = []

    def ask(self, operation: str, target: int | str, *args: object, **kwargs: object) -> object:
        """Has the other process do an operation. target: a handle of the other side, or a name.
        Raises what the operation raised.
        """
        values = [encode(arg, self._keep) for arg in args]
        named = {key: encode(argument, self._keep) for key, argument in kwargs.items()}
        self._send({"ask": operation, "of": target, "args": values, "kwargs": named})
        while True:
            message = self._receive()
            if "ask" in message:
                self._answer(message)
            elif "raised" in message:
                raise _error(message)
            else:
                self._put_back(args, message.get("args"))
                return self._decoded(message.get("value"))

    def serve(self) -> None:
        """Answer until the other side closes."""
        while True:
            try:
                message = self._receive()
            except OtherSideFailed:
                return
            self._answer(message)

    def _answer(self, message: Mapping[str, Any]) -> None:
        try:
            args = [self._decoded(argument) for argument in message["args"]]
            kwargs = {
                key: self._decoded(argument) for key, argument in message["kwargs"].items()
            }
            result = self._perform(message["ask"], message["of"], args, kwargs)
            changed = [
                encode(arg, self._keep) if isinstance(arg, CHANGEABLE) else None for arg in args
            ]
            reply: dict[str, object] = {"value": encode(result, self._keep), "args": changed}
        except BaseException as error:  # noqa: BLE001 - it is the other side's to judge
            names = [kind.__name__ for kind in type(error).__mro__]
            try:
                text = str(error)
            except BaseException:  # noqa: BLE001 - an error class of the answer's
                text = ""
            reply = {"raised": names, "text": text[:1000]}
        self._send(reply)

    def _perform(
        self, operation: str, of: object, args: list[Any], kwargs: dict[str, Any]
    ) -> object:
        if self._names is None:
            # Functions that the tests handed out: an attribute would lead on to their globals.
            if operation != "__call__" or not isinstance(of, int):
                raise NotPlain("only to be called")
            return self._object(of)(*args, **kwargs)
        if isinstance(of, str):
            if operation == "has":
                return of in self._names
            return self._names[of]
        result = OPERATIONS[operation](self._object(int(str(of))), *args, **kwargs)
        return _awaited(result) if inspect.iscoroutine(result) else result

    def _keep(self, value: object) -> list[Any]:
        for number, object_ in enumerate(self._kept):
            if object_ is value:
                return ["handle", number]
        self._kept.append(value)
        return ["handle", len(self._kept) - 1]

    def _object(self, number: int) -> Any:
        if not 0 <= number < len(self._kept):
            raise NotPlain("no such handle")
        return self._kept[number]

    def _decoded(self, data: object) -> Any:
        return decode(data, self._stand_in, _module)

    def _stand_in(self, tag: str, number: int) -> object:
        return Remote(self, number) if tag == "handle" else self._object(number)

    def _put_back(self, args: tuple[object, ...], changed: object) -> None:
        """Lists, dicts and sets that the call changed change here too."""
        if not isinstance(changed, list):
            return
        for given, data in zip(args, changed, strict=False):
            if data is None:
                continue
            match given, self._decoded(data):
                case list() | bytearray(), list() | bytearray() as new:
                    given[:] = new
                case dict() | set(), dict() | set() as new if type(given) is type(new):
                    given.clear()
                    given.update(new)

    def _send(self, message: Mapping[str, object]) -> None:
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            self._writer.flush()
        except (OSError, ValueError) as error:
            raise OtherSideFailed(f"nothing can be sent: {error}") from None

    def _receive(self) -> Mapping[str, Any]:
        line = self._reader.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise OtherSideFailed("it ended, or its line is too long")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise OtherSideFailed("it did not send JSON") from None
        if not isinstance(message, dict):
            raise OtherSideFailed("it sent something else")
        return message


class Remote(StandIn):
    """An object that stays in the other process; what is done with it is done there.

    It equals itself and, where both are the other side's, what that side says: never a value
    of ours, so that no answer can claim to equal everything.
    """

    __slots__ = ("_peer",)
    _peer: Peer

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "remote_handle", number)

    def __getattr__(self, name: str) -> object:
        return self._peer.ask("__getattr__", self.remote_handle, name)

    def __setattr__(self, name: str, value: object) -> None:
        self._peer.ask("__setattr__", self.remote_handle, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            return False
        if other.remote_handle == self.remote_handle:
            return True
        equals = self._peer.ask("__getattr__", self.remote_handle, "__eq__")
        return callable(equals) and equals(other) is True

    def __hash__(self) -> int:
        return hash(self.remote_handle)


def _forwarded(name: str) -> Callable[..., object]:
    def method(self: Remote, *args: object, **kwargs: object) -> object:
        if name in ORDERING and not isinstance(args[0], Remote):
            return NotImplemented
        result = self._peer.ask(name, self.remote_handle, *args, **kwargs)
        expected = {"__len__": int, "__bool__": bool, "__str__": str, "__repr__": str}.get(name)
        if expected is not None and type(result) is not expected:
            raise OtherSideFailed(f"{name} gave no {expected.__name__}")
        both = any(isinstance(arg, Remote) for arg in args)
        if name in ARITHMETIC and not both and not isinstance(result, Remote):
            raise OtherSideFailed(f"{name} gave a value, where an object of its own was due")
        return result

    return method


for _name in OPERATIONS:
    if _name not in ("__getattr__", "__setattr__", "__hash__"):
        setattr(Remote, _name, _forwarded(_name))


def _awaited(result: Coroutine[Any, Any, object]) -> object:
    import asyncio  # noqa: PLC0415 - takes longer than all the rest, and few answers need it

    return asyncio.run(result)


def _module(name: str) -> object:
    """A module of the standard library, imported here and not taken from the other side."""
    if name.partition(".")[0] not in sys.stdlib_module_names:
        raise NotPlain(f"no module {name!r}")
    return importlib.import_module(name)


def _error(message: Mapping[str, Any]) -> Exception:
    """The nearest built-in class of what was raised there."""
    names, text = message["raised"], str(message.get("text", ""))
    for name in names if isinstance(names, list) else ():
        kind = getattr(builtins, str(name), None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(text)
            except TypeError:  # UnicodeDecodeError and its like take more
                continue
    return RuntimeError(text)
