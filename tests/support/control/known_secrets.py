"""The secrets of the tests' installations."""

from harness.frame.runtime.encryption import new_key

ENCRYPTION_KEYS = [new_key()]
SECRET = b"a secret of the tests"
