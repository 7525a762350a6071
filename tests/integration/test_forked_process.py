import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no other system forks")

# In a program of its own: pytest has threads.
BEGINNING = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path
from harness.app.processes import can_fork, fork_process
assert can_fork()
"""
LASTING = """
child = fork_process("serve part")
if child is None:
    time.sleep(600)
"""


def run(code: str) -> list[str]:
    done = subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", BEGINNING + code],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.split()


def test_a_fork_has_its_own_name_and_session() -> None:
    code = """
while (comm := Path(f"/proc/{child.pid}/comm").read_text().strip()) != "serve part":
    time.sleep(0.01)
print(os.getsid(child.pid) == child.pid != os.getsid(0), child.poll())
child.kill()
print(child.wait())
"""
    assert run(LASTING + code) == ["True", "None", "-9"]


def test_a_fork_that_does_not_end_in_time_is_told_and_ends_with_a_signal() -> None:
    code = """
try:
    child.wait(timeout=0.1)
except subprocess.TimeoutExpired:
    print("lasts")
child.terminate()
print(child.wait(timeout=60), child.poll())
child.terminate()
child.kill()
"""
    assert run(LASTING + code) == ["lasts", "-15", "-15"]


def test_a_fork_ends_with_its_own_exit_code_and_ends_nothing_else() -> None:
    code = """
child = fork_process("serve part")
if child is None:
    sys.exit(3)
print(child.wait())
"""
    assert run(code) == ["3"]


def test_a_program_with_threads_is_not_forked() -> None:
    code = """
over = threading.Event()
threading.Thread(target=over.wait).start()
print(can_fork())
over.set()
"""
    assert run(code) == ["False"]
