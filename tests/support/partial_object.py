"""Objects of our classes with few of their attributes. A stand-in of another class would do in
Python, but compiled code refuses it.
"""

from typing import Any, TypeVar

Made = TypeVar("Made")


def partial_object(made_of: type[Made], **values: Any) -> Made:
    """An object of that class with these attributes, and no others."""
    made = made_of.__new__(made_of)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made
