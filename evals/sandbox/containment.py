"""A process contains itself before it runs a model's code: namespaces, read-only root, limits.

Linux: namespaces of its own for mounts, processes, network, IPC and host name (and users, where
the process is not root), a read-only root with Python's library and nothing else, an identity
without rights, no new privileges, limits on memory, CPU time, files and processes.
Sources: unshare(2), pivot_root(2), capabilities(7), prctl(2).
"""

import ctypes
import os
import platform
import resource
import secrets
import signal
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final, NoReturn

NEW_MOUNTS, NEW_HOST, NEW_IPC = 0x00020000, 0x04000000, 0x08000000
NEW_USERS, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
NAMESPACES: Final = NEW_MOUNTS | NEW_HOST | NEW_IPC | NEW_PROCESSES | NEW_NETWORK
READ_ONLY, NO_SUID, NO_DEVICES, REMOUNT, BIND, RECURSIVE, PRIVATE = (
    *(0x1, 0x2, 0x4, 0x20),
    *(0x1000, 0x4000, 0x40000),
)
DETACH: Final = 2
PIVOT_ROOT: Final[Mapping[str, int]] = {"x86_64": 155, "aarch64": 41}
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
LAST_CAPABILITY: Final = 63
CAPABILITIES_V3: Final = 0x20080522
NOBODY: Final = 65_534
# A user that owns nothing; one for each process, so that one's limit is not another's.
FIRST_STRANGER, STRANGERS = 2_000_000_000, 2**20
FILE_BYTES: Final = 2**20
OPEN_FILES, PROCESSES = 32, 4
LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo")
DEVICES: Final = ("/dev/null", "/dev/urandom")
# How a mount's own flags, which a bind must keep, are called by statvfs and by mount.
KEPT_FLAGS: Final = (
    (os.ST_NOSUID, NO_SUID),
    (getattr(os, "ST_NODEV", 4), NO_DEVICES),
    (getattr(os, "ST_NOEXEC", 8), 0x8),
    (getattr(os, "ST_NOATIME", 1024), 0x400),
    (getattr(os, "ST_NODIRATIME", 2048), 0x800),
    (getattr(os, "ST_RELATIME", 4096), 0x200000),
)


class NotContained(Exception):
    """Raised when this machine does not let a process contain itself; the text says what
    failed.
    """


def enter(root: str) -> None:
    """Move this process, which must be single-threaded, into its own world at `root`.

    root: an empty folder, a mount point afterwards. Returns in a child, process 1 of its own
    namespace; the caller's process waits for it and ends with its exit code. Raises
    NotContained.
    """
    if sys.platform != "linux" or platform.machine() not in PIVOT_ROOT:
        raise NotContained(f"{sys.platform} on {platform.machine()} has no containment here")
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    as_root = user == 0 and libc.unshare(NAMESPACES) == 0
    if not as_root:
        _checked(libc.unshare(NAMESPACES | NEW_USERS), "unshare")
        _map_identity(user, group)
    _forbid_shared_memory()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child:
        _wait_for(libc, child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _build_root(libc, root)
    _give_up_rights(libc, as_root=as_root)


def _wait_for(libc: ctypes.CDLL, child: int) -> NoReturn:
    """End with the child's exit code; SIGTERM, or our parent's death, ends it at once.

    The child is process 1 of its namespace: with it ends all that it started, in whatever
    session. It can neither see nor signal us.
    """
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _forbid_shared_memory() -> None:
    """System V memory and queues, of the new IPC namespace: no limit on a process counts them.

    Where the kernel lets only its own root say so, they stay.
    """
    for name in ("shmmax", "shmmni", "msgmni"):
        with suppress(OSError), open(f"/proc/sys/kernel/{name}", "w", encoding="ascii") as out:
            out.write("0")


def limit(memory_bytes: int, cpu_s: int, *, own_user: bool) -> None:
    """What the process may use from here on; it cannot raise these again.

    own_user: nobody else's processes count with it, so that their number can be limited.
    """
    processes = PROCESSES if own_user else resource.RLIM_INFINITY
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        bounds = [bound for bound in (most, hard) if bound != resource.RLIM_INFINITY]
        kept = min(bounds, default=resource.RLIM_INFINITY)
        resource.setrlimit(kind, (kept, kept))


def no_new_privileges() -> None:
    """Lets no program that this process starts gain rights by its owner or its file."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def _checked(result: int, name: str) -> None:
    if result != 0:
        raise NotContained(f"{name}: {os.strerror(ctypes.get_errno())}")


def _map_identity(user: int, group: int) -> None:
    """Inside we are nobody; outside still who we were."""
    for file, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {user} 1"),
        ("gid_map", f"{NOBODY} {group} 1"),
    ):
        try:
            with open(f"/proc/self/{file}", "w", encoding="ascii") as out:
                out.write(line)
        except OSError as error:
            raise NotContained(f"{file}: {error.strerror}") from None


def _build_root(libc: ctypes.CDLL, root: str) -> None:
    def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
        texts = (source, target, kind, options)
        encoded = [os.fsencode(text) if text else None for text in texts]
        result = libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3])
        _checked(result, f"mount {target}")

    mount("", "/", "", RECURSIVE | PRIVATE)
    mount("tmpfs", root, "tmpfs", NO_SUID | NO_DEVICES, "size=1m,mode=755")
    for path in _visible():
        _show(mount, path, root)
    os.mkdir(f"{root}/empty", 0o755)
    mount("", root, "", REMOUNT | READ_ONLY | NO_SUID | NO_DEVICES)
    os.chdir(root)
    pivot = PIVOT_ROOT[platform.machine()]
    _checked(libc.syscall(ctypes.c_long(pivot), b".", b"."), "pivot_root")
    # The old root lies over the new one now: without it no path leads out.
    _checked(libc.umount2(b".", DETACH), "umount")
    os.chdir("/empty")


def _visible() -> Iterator[str]:
    yield from LIBRARIES
    if sys.base_prefix != "/usr":
        yield f"{sys.base_prefix}/lib"
    yield from DEVICES


def _show(mount: "object", path: str, root: str) -> None:
    assert callable(mount)  # noqa: S101 - our own function
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    target = root + path
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(path), target)
        return
    if stat.S_ISDIR(mode):
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(path, target, "", BIND)
    flags = os.statvfs(target).f_flag
    kept = sum(ours for theirs, ours in KEPT_FLAGS if flags & theirs)
    mount("", target, "", BIND | REMOUNT | READ_ONLY | NO_SUID | kept)


def _give_up_rights(libc: ctypes.CDLL, *, as_root: bool) -> None:
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if as_root:
        os.setgroups([])
        stranger = FIRST_STRANGER + secrets.randbelow(STRANGERS)
        # In a container that maps few users there is nobody alone.
        for user in (stranger, NOBODY):
            with suppress(OSError):
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
                break
        if os.geteuid() == 0:
            raise NotContained("setresuid: no other user can be taken")
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0)
    _checked(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
