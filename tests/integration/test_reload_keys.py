"""Keys of `.env` come and go by SIGHUP: the fallback answers while the primary has no key."""

import os
import pickle
import pty
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from harness.app import data_plane
from harness.app.installation import (
    load_settings,
    open_installation,
    read_dotenv,
)
from harness.frame.errors import ConfigError
from harness.frame.people.access import SYSTEM, Role
from harness.frame.runtime.supervisor import Supervisor, supervise_reloads
from harness.operations import keys
from tests.support.router.router_process import Routed, eventually, routed
from tests.support.site.processes import free_port

LINE = "FIRST_KEY=sk-first\n"


@pytest.fixture
def environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.req("E3", "E5")
@pytest.mark.usefixtures("environment")
def test_a_variable_of_dotenv_follows_its_line_and_the_environment_wins(tmp_path: Path) -> None:
    os.environ["OF_THE_SHELL"] = "kept"
    file = tmp_path / ".env"

    def values(text: str) -> list[str | None]:
        file.write_text(text, encoding="utf-8")
        read_dotenv(tmp_path)
        return [os.environ.get(name) for name in ("FIRST_KEY", "OF_THE_SHELL")]

    assert values("OF_THE_SHELL=lost\n" + LINE) == ["sk-first", "kept"]
    assert values("FIRST_KEY=sk-other\n") == ["sk-other", "kept"]
    assert values("") == [None, "kept"]
    assert values(LINE) == ["sk-first", "kept"]


def supervise() -> None:
    """Runs two parts until they are ended; each leaves a file with its pid at each reload."""
    code = (
        "import os, pathlib, signal, sys, time\n"
        "from harness.frame.runtime.supervisor import RELOAD, reload_at_hangup\n"
        "note = pathlib.Path(sys.argv[1], str(os.getpid()))\n"
        "signal.signal(RELOAD, lambda *_: note.touch())\n"
        "reload_at_hangup()\nnote.touch()\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, {RELOAD})\ntime.sleep(600)"
    )
    supervise_reloads()
    part = [sys.executable, "-c", code, sys.argv[1]]
    raise SystemExit(Supervisor({"one": part, "two": part}, lambda _: None).run())


def test_a_hangup_of_any_process_reloads_every_part_and_a_closed_terminal_ends_all(
    tmp_path: Path,
) -> None:
    code = "from tests.integration.test_reload_keys import supervise; supervise()"
    pid, terminal = pty.fork()
    if not pid:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, "-c", code, str(tmp_path)])  # noqa: S606
    eventually(lambda: len(list(tmp_path.iterdir())) == 2)
    parts = psutil.Process(pid).children()
    notes = {tmp_path / str(part.pid) for part in parts}

    for process in (pid, *(part.pid for part in parts)):
        for note in notes:
            note.unlink()
        os.kill(process, signal.SIGHUP)
        eventually(lambda: set(tmp_path.iterdir()) == notes)
    assert all(part.is_running() for part in parts)

    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not any(part.is_running() for part in parts)


def answering(world: Routed) -> str:
    try:
        answer = httpx.post(
            f"{world.url}/v1/chat/completions",
            json={
                "model": "chat",
                "messages": [{"role": "user", "content": "Hello"}],
            },
            headers={"authorization": f"Bearer {world.key}"},
            timeout=60,
        )
    except httpx.TransportError:
        return ""
    return str(answer.headers.get("x-swapproof-target", "")).partition("/")[0]


def has_value(world: Routed, viewer: str) -> bool | None:
    """Says whether the control plane finds the first provider's key; None without an answer."""
    address = f"{world.place.url('control')}/api/v1/credentials/providers"
    bearer = {"authorization": f"Bearer {viewer}"}
    try:
        answer = httpx.get(address, headers=bearer, timeout=60)
    except httpx.TransportError:
        return None
    if answer.status_code != httpx.codes.OK:
        return None
    return any(one["hasValue"] for one in answer.json()["items"] if one["name"] == "first")


@pytest.mark.req("E3", "E5", "D3")
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    "together",
    [
        pytest.param(True, id="serve all", marks=pytest.mark.verify),
        pytest.param(False, id="single processes", marks=pytest.mark.spine),
    ],
)
def test_a_key_that_leaves_dotenv_makes_the_fallback_answer_until_it_is_back(
    provider: str,
    tmp_path: Path,
    *,
    together: bool,
) -> None:
    sim = {"kind": "sim", "api_base": f"{provider}/v1"}
    dotenv = tmp_path / ".env"
    dotenv.write_text(LINE, encoding="utf-8")
    with routed(
        tmp_path,
        provider,
        agents={"port": free_port()},
        providers={
            "first": {**sim, "api_key_env": "FIRST_KEY"},
            "second": sim,
        },
        routes={
            "chat": {
                "incumbent": "first/sim-base",
                "fallbacks": ["second/sim-base"],
                "suites": ["colours"],
            }
        },
    ) as world:
        installation = world.installation
        viewer = keys.create_key(
            installation.context,
            SYSTEM,
            "v",
            secret=installation.secret,
            role=Role.VIEWER,
        )[1]
        if together:
            world.place.start("all", "serve", "all")
            parts = ["all"]
        else:
            world.start()
            world.place.start("control", "serve", "control", wait_for="/readyz")
            parts = ["router", "control"]
        pids = [world.place.pid(part) for part in parts]
        eventually(lambda: (answering(world), has_value(world, viewer)) == ("first", True))
        router = [psutil.Process(pids[0]).children()[0].pid] if together else pids
        for hung_up, text, name, known in (
            (pids, "", "second", False),
            (router, LINE, "first", True),
        ):
            dotenv.write_text(text, encoding="utf-8")
            for pid in hung_up:
                os.kill(pid, signal.SIGHUP)
            eventually(lambda: answering(world) == name)  # noqa: B023 - called at once
            eventually(lambda: has_value(world, viewer) is known)  # noqa: B023 - as above
            assert [world.place.children[part].poll() for part in parts] == [None] * len(parts)


FILE = "home: state\nrouter: {port: 8099, workers: 2}\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SWAPPROOF_SECRET", "the secret")
    monkeypatch.setenv("OF_THE_SHELL", "kept")
    before = dict(os.environ)
    file = tmp_path / "swapproof.yaml"
    file.write_text(FILE, encoding="utf-8")
    (tmp_path / ".env").write_text("SIM_KEY=old\n", encoding="utf-8")
    yield file
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.req("E3")
def test_a_changed_dotenv_and_file_are_taken_and_the_flag_still_wins(file: Path) -> None:
    installation = open_installation(file)
    assert os.environ["SIM_KEY"] == "old"

    (file.parent / ".env").write_text("SIM_KEY=new\nOF_THE_SHELL=lost\n", encoding="utf-8")
    file.write_text(FILE + "switches: [provider:backup]\n", encoding="utf-8")
    again = data_plane._reload_settings(file, installation, 4)

    assert (os.environ["SIM_KEY"], os.environ["OF_THE_SHELL"]) == (
        "new",
        "kept",
    )
    assert again.switches == ("provider:backup",)
    assert again.router.workers == 4


@pytest.mark.req("D8")
def test_a_changed_class_of_data_reaches_the_workers(file: Path) -> None:
    file.write_text(FILE + "data_classes: {personal: [up, away]}\n", encoding="utf-8")
    installation = open_installation(file)

    file.write_text(FILE + "data_classes: {personal: [up]}\n", encoding="utf-8")
    orders = data_plane._build_worker_spec(
        data_plane._reload_settings(file, installation, None)
    )

    given = pickle.loads(orders.given)  # noqa: S301 - our own
    assert given.data_classes == {"personal": frozenset({"up"})}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "home: state\nrouter: {prot: 1}\n",
            "swapproof.yaml:2: unknown key 'router.prot'",
        ),
        (
            "home: state\nrouter: {port: 9}\n",
            "router.port changed, which needs a restart",
        ),
        (
            "home: other\nrouter: {port: 8099}\n",
            "home changed, which needs a restart",
        ),
        (f"{FILE}database_url: sqlite:///x.db\n", "database_url changed"),
    ],
)
def test_what_is_wrong_or_takes_a_restart_is_refused_and_changes_nothing(
    file: Path,
    text: str,
    says: str,
) -> None:
    installation = open_installation(file)
    environment = dict(os.environ)
    (file.parent / ".env").write_text("SIM_KEY=new\n", encoding="utf-8")
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=says):
        data_plane._reload_settings(file, installation, None)

    assert dict(os.environ) == environment


def test_another_secret_takes_a_restart(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installation = open_installation(file)
    monkeypatch.setenv("SWAPPROOF_SECRET", "other")

    with pytest.raises(ConfigError, match="SWAPPROOF_SECRET changed"):
        data_plane._reload_settings(file, installation, None)


def test_a_worker_gives_memory_back_after_large_answers_unless_told_otherwise(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "7")
    given = data_plane._build_worker_spec(load_settings(file)).environment

    assert given["MALLOC_MMAP_THRESHOLD_"] == str(8 * 1024 * 1024)
    assert given["MALLOC_TRIM_THRESHOLD_"] == "7"
    assert "MALLOC_MMAP_THRESHOLD_" not in os.environ
