from pathlib import Path

import pytest

from harness.domain.errors import ConfigError, DecryptionFailed
from harness.runtime.encryption import (
    FernetCipher,
    keys_in,
    new_key,
    read_key_file,
    write_key_file,
)


def test_what_was_encrypted_is_read_again_and_says_nothing_of_itself() -> None:
    cipher = FernetCipher(lambda: [new_key_of["a"]])
    token = cipher.encrypt("sk-secret")

    assert cipher.decrypt(token) == "sk-secret"
    assert "sk-secret" not in token + repr(cipher)
    assert cipher.encrypt("sk-secret") != token


@pytest.mark.req("D4")
def test_an_old_key_decrypts_until_it_is_removed_and_the_newest_one_encrypts() -> None:
    keys = [new_key_of["a"]]
    ours, other = FernetCipher(lambda: keys), FernetCipher(lambda: keys)
    before = ours.encrypt("x")
    assert other.decrypt(before) == "x"

    keys = [new_key_of["b"], new_key_of["a"]]
    rotated = FernetCipher(lambda: keys).reencrypt(before)
    # A process that began before looks at the keys once more.
    assert other.decrypt(rotated) == "x"

    keys = [new_key_of["b"]]
    assert FernetCipher(lambda: keys).decrypt(rotated) == "x"
    with pytest.raises(DecryptionFailed, match="none of the encryption keys"):
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
    assert read_key_file(file) == ["a", "b"] == keys_in("a, b")
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
