from prisma.errors import PrismaError


class EngineError(PrismaError):
    pass


class EngineConnectionError(EngineError):
    pass


class EngineRequestError(EngineError):
    pass
