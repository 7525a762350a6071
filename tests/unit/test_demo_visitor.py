"""The demo's visitor: keys, links, and an end by Ctrl-C wherever the program happens to be."""

import os
import pty
import signal
import sys
import termios
from pathlib import Path

import pytest

from harness.app.demo.links import StoryLinks
from harness.app.demo.visitor import keys_at_once, pressed_key
from harness.domain.proposals.proposal import ProposalPhase
from harness.runtime.processes.interruption import interrupts

LINKS = StoryLinks("http://127.0.0.1:8501", Path("/tmp/demo/swapgate.yaml"))  # noqa: S108


def test_a_key_counts_as_it_is_pressed_and_the_terminal_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keyboard, terminal = pty.openpty()
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        before = termios.tcgetattr(stdin)
        with keys_at_once(terminal=True):
            os.write(keyboard, b"B")  # without Return
            assert pressed_key(terminal=True) == "b"
            assert pressed_key(terminal=True) == ""
        assert termios.tcgetattr(stdin) == before
    os.close(keyboard)


def test_an_interrupt_is_noted_and_raises_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts() as over:
        assert not over.ended
        os.kill(os.getpid(), signal.SIGINT)
        assert over.ended
    assert signal.getsignal(signal.SIGINT) is before


def test_every_phase_says_where_to_look_or_what_to_do() -> None:
    waiting = LINKS.of_phase("chat-yours", ProposalPhase.AWAITING_APPROVAL, "p_1")
    canary = LINKS.of_phase("chat-yours", ProposalPhase.CANARY, "p_1")

    command = "swapgate --config /tmp/demo/swapgate.yaml"
    assert "http://127.0.0.1:8501/proposals" in waiting
    assert f"{command} proposal approve p_1`" in waiting
    assert "http://127.0.0.1:8501/canary?route=chat-yours" in canary
    assert f"{command} canary abort chat-yours --reason tried`" in canary
    assert LINKS.of_phase("chat-yours", ProposalPhase.EVALUATING, "p_1").endswith("?id=p_1")
    assert LINKS.your_story(break_key="b")[-1].startswith("b  kills the provider")
    assert not any(line.startswith("b") for line in LINKS.your_story(break_key=""))
