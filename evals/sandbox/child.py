"""A sandbox process contains itself, then runs the answer's code or its tests.

Run by its path with `python -I -S`; reads one JSON object, a line on stdin: `role` (`answer` or
`tests`), `contained`, `memory_bytes`, `cpu_s`, `reader` and `writer` (descriptors of the pipes
from and to the other process), and what the role takes. The verdict goes to the
tests' own stdout, which the answer's process does not have.
"""

import builtins
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any, BinaryIO

# The folder that holds our outermost package: the checkout, or site-packages.
PACKAGES = os.path.dirname(os.path.abspath(__file__))
while os.path.exists(os.path.join(PACKAGES, "__init__.py")):
    PACKAGES = os.path.dirname(PACKAGES)


def run_answer(order: Mapping[str, Any], reader: BinaryIO, writer: BinaryIO) -> None:
    """Runs a model's code in this process. program: the answer, behind its prompt where it goes
    on from there.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    # The model's code is what this process is for.
    exec(compile(order["program"], "answer", "exec"), namespace)  # noqa: S102 - as above
    writer.write(b'"ready"\n')
    writer.flush()
    Peer(reader, writer, namespace).serve()


def run_tests(
    order: Mapping[str, Any], reader: BinaryIO, writer: BinaryIO, verdict: BinaryIO
) -> None:
    """Runs the tests of a task against the answer's process.

    In `order`: head, the prompt's imports and helpers; test; call; entry_point; word, which
    says `passed`.
    """
    if reader.readline(64) != b'"ready"\n':
        raise SystemExit("the answer's code did not come to its end")
    answer = Peer(reader, writer)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(order["head"], "prompt", "exec"), namespace)  # noqa: S102 - the suite's own code
    program = compile(f"{order['test']}\n\n{order['call']}\n", "test", "exec")
    entry_point = order["entry_point"]
    for name in sorted(set(names_in(program))):
        # With an entry point the prompt's helpers are the suite's; without one, the answer may
        # be what completes them.
        ours = name in namespace and name != entry_point and entry_point
        if ours or hasattr(builtins, name):
            continue
        if answer.ask("has", name) is True:
            namespace[name] = answer.ask("get", name)
    exec(program, namespace)  # noqa: S102 - as above
    verdict.write(order["word"].encode() + b"\n")
    verdict.flush()


def names_in(code: CodeType) -> Iterator[str]:
    """Yields every name that code, or code within it, looks up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)


def main() -> None:
    order = json.loads(sys.stdin.buffer.readline())
    reader, writer = os.fdopen(order["reader"], "rb"), os.fdopen(order["writer"], "wb")
    verdict = sys.stdout.buffer
    if order["contained"]:
        try:
            enter(os.getcwd())
        except NotContained as error:
            verdict.write(f"not contained: {error}\n".encode())
            return
    verdict.write(b"started\n")
    verdict.flush()
    limit(order["memory_bytes"], order["cpu_s"], own_user=order["contained"])
    no_new_privileges()
    sys.stdin = io.StringIO()
    # What a program prints must not fill a pipe.
    sys.stdout = sys.stderr = io.StringIO()
    if order["role"] == "answer":
        del verdict
        run_answer(order, reader, writer)
    else:
        run_tests(order, reader, writer, verdict)


if __name__ == "__main__":
    sys.path.insert(0, PACKAGES)
    from evals.sandbox.containment import NotContained, enter, limit, no_new_privileges
    from evals.sandbox.rpc import Peer

    sys.path.remove(PACKAGES)
    sys.path_importer_cache.pop(PACKAGES, None)
    main()
