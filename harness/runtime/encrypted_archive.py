"""Writes and reads a file of lines that a passphrase encrypts, for backups (`ArchiveWriter`,
`read_archive`).

The file is FORMAT, a salt, chunks of compressed lines, and the SHA-256 of all that. The key is
scrypt's of passphrase and salt; each chunk is encrypted by AES-256-GCM, and its nonce is its
number and whether it is the last one (STREAM): none can be changed, left out, moved or cut off.
The SHA-256 tells a damaged file from a wrong passphrase.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from harness.domain.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT: Final = b"swapgate backup 1\n"
SALT_BYTES, KEY_BYTES, SHA256_BYTES, TAG_BYTES = 16, 32, 32, 16
CHUNK_BYTES: Final = 1 << 20
# 32 MiB and about a tenth of a second for each passphrase that somebody tries.
SCRYPT_N, SCRYPT_R, SCRYPT_P, SCRYPT_MEMORY_BYTES = 1 << 15, 8, 1, 1 << 26
SHORTEST_PASSPHRASE: Final = 12
_LENGTH: Final = struct.Struct(">I")
_COMPRESSION_LEVEL: Final = 3


def check_passphrase(passphrase: str) -> None:
    """Checks that a passphrase is long enough; else raises InputError."""
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise InputError(
            f"the passphrase has {len(passphrase)} characters: take {SHORTEST_PASSPHRASE} or "
            "more, since whoever guesses it has every key"
        )


class ArchiveWriter:
    """Writes lines, encrypted, into an open file. `close` completes it; without, it is refused
    when it is read.
    """

    def __init__(self, out: BinaryIO, passphrase: str) -> None:
        check_passphrase(passphrase)
        salt = os.urandom(SALT_BYTES)
        self._out = out
        self._cipher = _cipher(passphrase, salt)
        self._compressor = zlib.compressobj(_COMPRESSION_LEVEL)
        self._checksum = hashlib.sha256()
        self._pending = bytearray()
        self._chunks = 0
        self._put(FORMAT + salt)

    def write(self, line: bytes) -> None:
        """Writes a line, which has no newline in it."""
        self._pending += self._compressor.compress(line + b"\n")
        while len(self._pending) > CHUNK_BYTES:
            self._put_chunk(bytes(self._pending[:CHUNK_BYTES]), is_last=False)
            del self._pending[:CHUNK_BYTES]

    def close(self) -> None:
        self._pending += self._compressor.flush()
        self._put_chunk(bytes(self._pending), is_last=True)
        self._out.write(self._checksum.digest())

    def _put_chunk(self, content: bytes, *, is_last: bool) -> None:
        sealed = self._cipher.encrypt(_nonce(self._chunks, is_last=is_last), content, FORMAT)
        self._chunks += 1
        self._put(_LENGTH.pack(len(sealed)) + sealed)

    def _put(self, content: bytes) -> None:
        self._checksum.update(content)
        self._out.write(content)


def read_archive(file: Path, passphrase: str) -> Iterator[bytes]:
    """Reads the lines of a complete, undamaged file. Raises InputError, also in their midst."""
    _check_whole(file)
    with file.open("rb") as source:
        source.seek(len(FORMAT))
        cipher = _cipher(passphrase, source.read(SALT_BYTES))
        expander, rest = zlib.decompressobj(), b""
        for content in _chunks(file, source, cipher):
            *lines, rest = (rest + expander.decompress(content)).split(b"\n")
            yield from lines


def _check_whole(file: Path) -> None:
    checksum = hashlib.sha256()
    try:
        left = file.stat().st_size - SHA256_BYTES
        with file.open("rb") as source:
            if source.read(len(FORMAT)) != FORMAT:
                raise InputError(f"{file} is no backup of `swapgate backup`")
            source.seek(0)
            while left > 0 and (content := source.read(min(left, CHUNK_BYTES))):
                checksum.update(content)
                left -= len(content)
            stored = source.read(SHA256_BYTES)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    if stored != checksum.digest():
        raise InputError(
            f"{file} is damaged or cut off: its checksum does not fit; use another"
        )


def _chunks(file: Path, source: BinaryIO, cipher: "AESGCM") -> Iterator[bytes]:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - `--help` stays quick

    end, number, is_last = file.stat().st_size - SHA256_BYTES, 0, False
    while not is_last:
        # A file that was cut has a last chunk whose nonce says that it is not.
        length = source.read(_LENGTH.size)
        sealed = source.read(*_LENGTH.unpack(length)) if len(length) == _LENGTH.size else b""
        is_last = source.tell() >= end
        try:
            content = cipher.decrypt(_nonce(number, is_last=is_last), sealed, FORMAT)
        except (InvalidTag, ValueError):
            raise InputError(
                f"{file} does not open: the passphrase is another one, or the file was changed "
                "after it was written"
                if number == 0
                else f"{file} was changed after it was written: use another backup"
            ) from None
        yield content
        number += 1


def _cipher(passphrase: str, salt: bytes) -> "AESGCM":
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - as above

    key = hashlib.scrypt(
        passphrase.encode(),
        salt=salt,
        n=SCRYPT_N,
        r=SCRYPT_R,
        p=SCRYPT_P,
        maxmem=SCRYPT_MEMORY_BYTES,
        dklen=KEY_BYTES,
    )
    return AESGCM(key)


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])
