from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.alerts.alert import Alert, AlertEvent, AlertKind
from harness.frame.errors import ConfigError, DecryptionFailed
from harness.frame.failures import FailureClass, Reach
from harness.frame.runtime.encryption import (
    FernetCipher,
    new_key,
    read_key_file,
    split_keys,
    write_key_file,
)
from harness.providers.credential import (
    MAX_REST_S,
    REFUSED_S,
    ProviderKey,
    choose_key,
    key_rest_s,
    rested_keys,
)
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import ASK, CHAT, Door
from tests.support.router.live_router import (
    provider,
    snapshot,
    upstream_keys,
)

F = FailureClass
ABOUT_KEYS: Final = {Reach.KEY_AND_MODEL, Reach.KEY, Reach.ACCOUNT}
key_lists = st.lists(st.sampled_from("abcd"), min_size=1, unique=True)
rests = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 100))


@given(key_lists, rests, st.floats(0, 100))
def test_the_first_key_that_does_not_rest_is_chosen_and_else_the_soonest_back(
    keys: list[str],
    until: Mapping[str, float],
    now: float,
) -> None:
    able = rested_keys(keys, until, now)
    key = choose_key(keys, until, now)

    assert key in keys
    assert all(until.get(name, 0.0) <= now for name in able)
    if able:
        assert key == able[0]
        assert all(until[key] > now for key in keys[: keys.index(key)])
    else:
        assert all(until[key] <= until[other] for other in keys)


@given(st.sampled_from(F), st.sampled_from(Reach), st.none() | st.floats(0, 1e6))
def test_a_key_rests_only_for_what_is_about_keys_and_never_for_ever(
    failure: F, reach: Reach, told_s: float | None
) -> None:
    wait_s = key_rest_s(failure, reach, told_s)

    assert (wait_s is not None) is (reach in ABOUT_KEYS)
    if wait_s is not None:
        assert 0 < wait_s <= MAX_REST_S
        assert wait_s >= min(told_s or 0.0, MAX_REST_S)
        assert failure is F.RATE_LIMITED or wait_s >= REFUSED_S


class Keyed(Door):
    """A provider with two keys; `turns` by the key that is used."""

    def __init__(self, folder: Path) -> None:
        self.turns = {
            "UP_KEY": error(401, "No such key", "invalid_api_key"),
            "UP_KEY_2": completion(),
        }
        self.used: list[str] = []
        made = provider("http://up", more_api_key_envs=("UP_KEY_2",))
        super().__init__(
            folder,
            self.script_turn,
            first=snapshot("http://up", providers=[made]),
        )

    def script_turn(self, request: UpstreamRequest) -> ScriptedTurn:
        assert request.key is not None
        self.used.append(request.key.name)
        return self.turns[request.key.name]

    async def ask(self, times: int = 1) -> int:
        for _ in range(times):
            status, _, _ = await self.call(CHAT, ASK)
        return status

    def sent_alerts(self) -> list[tuple[AlertKind, AlertEvent]]:
        self.recorder.flush()
        return [(alert.kind, alert.news) for alert in self.kept.alerts]

    def kept_alerts(self) -> list[Alert]:
        self.recorder.flush()
        return list(self.kept.alerts)


@pytest.mark.req("A5", "B3")
async def test_a_refused_key_is_tried_again_after_some_minutes_and_told_of_once(
    tmp_path: Path,
) -> None:
    door = Keyed(tmp_path)

    assert await door.ask(times=3) == 200
    assert door.used == ["UP_KEY", "UP_KEY_2", "UP_KEY_2", "UP_KEY_2"]
    assert door.sent_alerts() == [(AlertKind.OUR_KEY, AlertEvent.RAISED)]
    assert "UP_KEY" in door.kept.alerts[0].title
    said = "Its provider said (401 invalid_api_key): No such key"
    assert door.kept.alerts[0].text.endswith(said)

    door.clock.advance(REFUSED_S + 1)
    assert await door.ask() == 200
    assert door.used[4:] == ["UP_KEY", "UP_KEY_2"]
    assert len(door.sent_alerts()) == 1

    door.turns["UP_KEY"] = completion()
    door.clock.advance(REFUSED_S + 1)
    assert await door.ask() == 200
    assert door.used[6:] == ["UP_KEY"]
    assert door.sent_alerts()[1:] == [(AlertKind.OUR_KEY, AlertEvent.ENDED)]


@pytest.mark.req("A5", "D4")
@pytest.mark.parametrize("replaced", [False, True])
async def test_the_alert_of_a_refused_key_ends_when_the_key_is_taken_away_or_replaced(
    tmp_path: Path, *, replaced: bool
) -> None:
    door = Keyed(tmp_path)
    assert await door.ask() == 200
    assert door.sent_alerts() == [(AlertKind.OUR_KEY, AlertEvent.RAISED)]
    door.app._alerts.evaluate()
    assert len(door.sent_alerts()) == 1

    others = [key for key in upstream_keys(door.kept.snapshot())["up"] if key.name != "UP_KEY"]
    new = [ProviderKey("UP_KEY", "another")] if replaced else []
    door.holder._keys_of = lambda _: {"up": [*new, *others]}
    door.kept.put(replace(door.kept.snapshot(), etag="again"))
    assert door.holder.refresh()
    door.app._alerts.evaluate()

    assert door.sent_alerts()[1:] == [(AlertKind.OUR_KEY, AlertEvent.ENDED)]
    door.turns["UP_KEY"] = completion()
    assert await door.ask() == 200
    assert door.used[2:] == (["UP_KEY"] if replaced else ["UP_KEY_2"])


@pytest.mark.req("A5", "D4")
async def test_the_alert_of_the_only_key_ends_with_it_and_that_of_none_as_another_worker_serves(
    tmp_path: Path,
) -> None:
    door = Keyed(tmp_path)
    others = upstream_keys(door.kept.snapshot())["up"][:1]
    for etag, own in (("one", others), ("none", [])):
        door.holder._keys_of = lambda _, own=own: {"up": own}  # type: ignore[misc]  # its default
        door.kept.put(replace(door.kept.snapshot(), etag=etag))
        assert door.holder.refresh()
        await door.ask()
        door.app._alerts.evaluate()
        # A second look tells nothing twice.
        door.app._alerts.evaluate()

    door.app._alerts.close(is_replaced=True)

    raised, ended, none, over = door.kept_alerts()
    assert (raised.key, none.key) == (ended.key, over.key)
    assert [alert.news for alert in (raised, ended, none, over)] == [
        AlertEvent.RAISED,
        AlertEvent.ENDED,
    ] * 2
    assert "has no key" in none.title


@pytest.mark.req("A5", "A6")
async def test_a_shutdown_does_not_end_the_alert_of_a_missing_key(tmp_path: Path) -> None:
    door = Keyed(tmp_path)
    door.holder._keys_of = lambda _: {"up": []}
    door.kept.put(replace(door.kept.snapshot(), etag="none"))
    assert door.holder.refresh()
    door.app._alerts.evaluate()

    door.app._alerts.close(is_replaced=False)

    assert door.sent_alerts() == [(AlertKind.OUR_KEY, AlertEvent.RAISED)]


@pytest.mark.req("A5")
async def test_a_key_that_reached_its_limit_rests_as_long_as_it_was_told(
    tmp_path: Path,
) -> None:
    door = Keyed(tmp_path)
    door.turns["UP_KEY"] = replace(error(429), headers={"retry-after": "40"})

    assert await door.ask(times=2) == 200
    assert door.used == ["UP_KEY", "UP_KEY_2", "UP_KEY_2"]
    assert door.sent_alerts() == []

    door.clock.advance(41)
    await door.ask()
    assert door.used[3:] == ["UP_KEY", "UP_KEY_2"]


def test_what_was_encrypted_is_read_again_and_says_nothing_of_itself() -> None:
    cipher = FernetCipher(lambda: [new_key_of["a"]])
    token = cipher.encrypt("sk-secret")

    assert cipher.decrypt(token) == "sk-secret"
    assert "sk-secret" not in token + repr(cipher)
    assert cipher.encrypt("sk-secret") != token


@pytest.mark.req("D4")
def test_an_old_key_decrypts_until_it_is_removed_and_the_newest_one_encrypts() -> None:
    keys = [new_key_of["a"]]
    ours = FernetCipher(lambda: keys)
    other = FernetCipher(lambda: keys)
    before = ours.encrypt("x")
    assert other.decrypt(before) == "x"

    keys = [new_key_of["b"], new_key_of["a"]]
    rotated = FernetCipher(lambda: keys).reencrypt(before)
    # A process that began before looks at the keys once more.
    assert other.decrypt(rotated) == "x"

    keys = [new_key_of["b"]]
    assert FernetCipher(lambda: keys).decrypt(rotated) == "x"
    with pytest.raises(DecryptionFailed, match="no available encryption key fits"):
        FernetCipher(lambda: keys).decrypt(before)
    with pytest.raises(DecryptionFailed):
        FernetCipher(lambda: keys).decrypt("no token")


def test_a_key_that_is_none_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError) as refused:
        FernetCipher(lambda: ["my-password-as-key"]).encrypt("x")

    assert "my-password" not in str(refused.value)


def test_the_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "encryption.keys"
    write_key_file(file, ["a", "b"])

    assert file.stat().st_mode & 0o777 == 0o600
    assert read_key_file(file) == ["a", "b"] == split_keys("a, b")
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=r"mode 0640.*chmod 600"):
        read_key_file(file)
    file.chmod(0o600)
    file.write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        read_key_file(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key_file(tmp_path / "none")


new_key_of = {name: new_key() for name in "ab"}
