class PrismaError(Exception):
    pass


class ClientNotConnectedError(PrismaError):
    pass


class HTTPClientClosedError(PrismaError):
    pass


class DataError(PrismaError):
    def __init__(self, data: object, *, message: str | None = None) -> None:
        super().__init__(message or str(data))
        self.data = data


class UniqueViolationError(DataError):
    pass


class ForeignKeyViolationError(DataError):
    pass


class MissingRequiredValueError(DataError):
    pass


class RawQueryError(DataError):
    pass


class TableNotFoundError(DataError):
    pass


class RecordNotFoundError(DataError):
    pass
