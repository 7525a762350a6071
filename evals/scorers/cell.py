"""The child in which a model's code runs: limits first, then the program, then a word.

Run by its path with `python -I -S`; reads one JSON object on stdin: `program`, `word`,
`memory_bytes`, `cpu_s`. Prints `network namespace` or `audit hook` (what keeps it off the
network), and the word once the program has come to its end.
"""

import ctypes
import io
import json
import os
import resource
import sys

# Which of the two keeps a program off the network.
NAMESPACE, HOOK = PROTECTIONS = ("network namespace", "audit hook")
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
FILE_BYTES = 2**20
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Events of CPython's audit table by which code reaches out of its process.
REFUSED = (
    *("socket.", "ctypes.", "subprocess.", "shutil.", "ftplib.", "urllib.", "winreg."),
    *("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.startfile"),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod"),
    *("os.chown", "os.truncate", "os.kill", "os.putenv", "os.utime", "os.setxattr", "pty."),
    *("signal.pthread_kill", "syslog.", "sqlite3.", "resource.", "fcntl.", "mmap.", "code."),
)
# What starts processes and native code past the audit table.
REFUSED_IMPORTS = frozenset({"_posixsubprocess", "_ctypes", "_cffi_backend", "_testcapi"})


def off_the_network() -> bool:
    """An empty network namespace of our own, where the kernel lets us have one."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return any(
            libc.unshare(flags) == 0 for flags in (CLONE_NEWUSER | CLONE_NEWNET, CLONE_NEWNET)
        )
    except (OSError, AttributeError):
        return False


def limit(memory_bytes: int, cpu_s: int) -> None:
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        kept = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (kept, kept))


# What a program may read: Python's own files, its folder, and what holds nobody's secret.
READABLE = tuple(
    os.path.realpath(each)
    for each in (*sys.path, ".", "/usr/share/zoneinfo", "/dev/null", "/dev/urandom")
)
READS = ("open", "os.listdir", "os.scandir", "os.chdir")


def readable(path: object) -> bool:
    """path: as the audit event has it; a number is of a file that is open already."""
    if isinstance(path, int):
        return True
    named = path if isinstance(path, str | bytes | os.PathLike) else "."
    real = os.path.realpath(os.fsdecode(named))
    return any(real == root or real.startswith(root + os.sep) for root in READABLE)


def watch(event: str, args: tuple[object, ...]) -> None:
    if event in READS and not readable(args[0]):
        raise PermissionError("files outside its folder cannot be read here")
    if event == "open":
        mode, flags = args[1], args[2]
        written = isinstance(mode, str) and any(each in mode for each in "wax+")
        if written or (isinstance(flags, int) and flags & WRITES):
            raise PermissionError("files cannot be written here")
    elif event == "import" and args[0] in REFUSED_IMPORTS:
        raise PermissionError(f"{args[0]} cannot be imported here")
    elif event.startswith(REFUSED):
        raise PermissionError(f"{event} is not allowed here")


def main() -> None:
    order = json.load(sys.stdin)
    sys.stdin = io.StringIO()
    out, word = sys.stdout, order["word"]
    inside = off_the_network()
    out.write(f"{NAMESPACE if inside else HOOK}\n")
    out.flush()
    # What the program prints must not fill a pipe, nor be taken for ours.
    sys.stdout = sys.stderr = io.StringIO()
    limit(order["memory_bytes"], order["cpu_s"])
    program = order["program"]
    del order
    for name in ("ctypes", *REFUSED_IMPORTS):
        sys.modules.pop(name, None)
    sys.addaudithook(watch)
    # The model's code is what this process is for.
    exec(compile(program, "answer", "exec"), {"__name__": "__main__"})  # noqa: S102 - as above
    out.write(word + "\n")
    out.flush()


if __name__ == "__main__":
    main()
