import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.site.forked_commands import ForkedCommand
from tests.support.site.processes import site

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


def test_a_command_that_a_test_forks_ends_as_in_a_process_of_its_own(tmp_path: Path) -> None:
    with site(tmp_path, {}) as place:
        for words, code in ((("--version",), 0), (("route", "list", "--unknown"), 2)):
            place.run(*words, expect=None)  # so that there is a template
            forked = place.run(*words, expect=code)
            alone = subprocess.run(  # noqa: S603 - our own command
                place.command(*words), capture_output=True, check=False, text=True
            )
            ended = (alone.returncode, alone.stdout, alone.stderr)
            assert (forked.returncode, forked.stdout, forked.stderr) == ended

        place.start("sim", "sim", "--port", str(place.ports["router"]))
        assert isinstance(place.children["sim"], ForkedCommand)
        place.kill("sim")
        assert place.children["sim"].returncode == -signal.SIGKILL


def test_a_crash_of_the_template_ends_its_forks() -> None:
    code = """
import psutil
from tests.support.site.forked_commands import Template
template = Template(os.environ)
with open(os.devnull, "r+b") as nothing:
    fork = template.fork(["sim", "--port", "0"], os.environ, [nothing.fileno()] * 3)
process = psutil.Process(fork.pid)
psutil.Process(fork.pid).parent().kill()
print(psutil.wait_procs([process])[1])
"""
    assert run(code) == ["[]"]
