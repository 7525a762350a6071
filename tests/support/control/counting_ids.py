"""Random ids for tests count instead (`CountingRandomIds`), so that tests can read them."""


class CountingRandomIds:
    def __init__(self) -> None:
        self._count = 0

    def token(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count:016x}"

    def secret(self) -> str:
        return self.token("secret-").ljust(43, "x")
