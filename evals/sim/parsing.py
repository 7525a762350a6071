"""Reads a value of a dataclass from JSON or YAML, and names the first wrong field."""

from typing import Annotated, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from harness.domain.errors import InputError

T = TypeVar("T")
STRICT_FIELDS = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
AtLeastZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def parse(kind: type[T], data: object, place: str) -> T:
    """Reads `data` as a `kind`. Raises InputError with the place and the field."""
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{place}: {where}: {first['msg']}") from None
