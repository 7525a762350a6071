from dataclasses import replace
from pathlib import Path

import pytest

from harness.app import secret_files
from harness.app.configuration import configuration
from harness.app.configuration.model import Settings
from harness.frame import package_data
from harness.frame.errors import ConfigError, SignatureInvalid
from harness.frame.signing.ed25519 import Ed25519Signatures
from harness.frame.signing.keyring import (
    KeyPurpose,
    format_keyring,
    parse_keyring,
    row_payload,
)
from tests.support.site.signing_keys import (
    CONTROL,
    ENVIRONMENT,
    KEYRING,
    PUBLIC,
    VERIFIER,
    WORKER,
)

pytestmark = pytest.mark.req("F1")

ROW = row_payload("verdict", "inst", {"id": "v_1", "outcome": "passed"})
OTHER = row_payload("verdict", "inst", {"id": "v_1", "outcome": "failed"})


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    shipped_ones = configuration.load_settings(
        None, {}, defaults=package_data.path("config/default.yaml")
    )
    return replace(shipped_ones, home=tmp_path / "home")


def test_what_control_signed_holds_for_every_purpose_and_for_that_content_alone() -> None:
    signature = CONTROL.sign(ROW)
    for purpose in KeyPurpose:
        VERIFIER.check(ROW, signature, purpose)
    with pytest.raises(SignatureInvalid, match="not what was signed"):
        VERIFIER.check(OTHER, signature, KeyPurpose.CONTROL)


def test_a_workers_key_signs_nothing_that_is_controls() -> None:
    signature = WORKER.sign(ROW)
    VERIFIER.check(ROW, signature, KeyPurpose.WORKER)
    with pytest.raises(SignatureInvalid, match="worker key"):
        VERIFIER.check(ROW, signature, KeyPurpose.CONTROL)


@pytest.mark.parametrize("forged", ["", "no dot", "0123456789abcdef.AAAA", "x.!"])
def test_a_text_that_is_no_signature_is_refused(forged: str) -> None:
    with pytest.raises(SignatureInvalid):
        VERIFIER.check(ROW, forged, KeyPurpose.CONTROL)


def test_public_keys_alone_sign_nothing() -> None:
    with pytest.raises(ConfigError, match="only public keys"):
        VERIFIER.sign(ROW)


def test_a_keyring_reads_as_it_was_written() -> None:
    assert parse_keyring(format_keyring(KEYRING.values()), "here") == KEYRING


@pytest.mark.parametrize(
    "text",
    ["", "a b c", f"0123456789abcdef control {'A' * 43} signs", "x y z !"],
)
def test_a_keyring_that_is_none_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ConfigError, match="here"):
        parse_keyring(text, "here")


def test_keys_are_made_once_each_for_its_owner_alone(settings: Settings) -> None:
    made = secret_files.create_keys(settings)
    assert {file.name for file in made} == {
        "signing.key",
        "worker-signing.key",
        "signing.pub",
    }
    private = [settings.home / name for name in secret_files.PRIVATE_FILES.values()]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in private)
    before = [file.read_text() for file in private]
    assert secret_files.create_keys(settings) == []
    assert [file.read_text() for file in private] == before
    assert not {line for file in private for line in file.read_text().split()} & set(
        (settings.home / secret_files.KEYRING_FILE).read_text().split()
    )


@pytest.mark.parametrize("broken", [None, "no keyring\n"], ids=["missing", "unreadable"])
def test_a_running_router_believes_nobody_while_its_keyring_is_away(
    settings: Settings, broken: str | None
) -> None:
    secret_files.create_keys(settings)
    router = secret_files.signatures(settings)
    signed = secret_files.signatures(settings, KeyPurpose.CONTROL).sign(ROW)
    router.check(ROW, signed, KeyPurpose.CONTROL)

    file = settings.home / secret_files.KEYRING_FILE
    whole = file.read_text()
    file.unlink()
    if broken is not None:
        file.write_text(broken)
    with pytest.raises(ConfigError, match=r"signing\.pub"):
        router.check(ROW, signed, KeyPurpose.CONTROL)

    file.write_text(whole)
    router.check(ROW, signed, KeyPurpose.CONTROL)


def test_the_key_that_signs_is_not_retired(settings: Settings) -> None:
    secret_files.create_keys(settings)
    [signs] = [
        key.id
        for key in secret_files.keyring(settings).values()
        if key.purpose is KeyPurpose.CONTROL
    ]
    with pytest.raises(ConfigError, match="rotate"):
        secret_files.retire_signing_key(settings, signs)


def test_a_private_key_that_others_may_read_is_refused(settings: Settings) -> None:
    secret_files.create_keys(settings)
    (settings.home / "signing.key").chmod(0o644)
    with pytest.raises(ConfigError, match="0644"):
        secret_files.signatures(settings, KeyPurpose.CONTROL).sign(ROW)


def test_keys_may_stand_in_the_environment_and_in_files_that_it_names(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in ENVIRONMENT.items():
        file = tmp_path / name
        file.write_text(value)
        monkeypatch.setenv(f"{name}_FILE", str(file))
    assert secret_files.create_keys(settings) == []
    signed = secret_files.signatures(settings, KeyPurpose.WORKER).sign(ROW)
    assert signed.startswith(PUBLIC[KeyPurpose.WORKER].id)
    monkeypatch.setenv("SWAPPROOF_SIGNING_KEYRING", "broken")
    with pytest.raises(ConfigError, match="SWAPPROOF_SIGNING_KEYRING"):
        Ed25519Signatures(lambda: secret_files.keyring(settings)).check(
            ROW, signed, KeyPurpose.WORKER
        )
