"""Enums and classes of an imaginary agent."""

from enum import Enum, Flag


class Color(Enum):
    RED = "red"
    CRIMSON = "red"  # an alias  # noqa: PIE796 – on purpose
    BLUE = "blue"


class Text(str, Enum):  # noqa: UP042 – the older way has to work, too
    HELLO = "hello"


class Permission(Flag):
    READ = 1
    WRITE = 2


class Provider:
    class Nested:
        pass


class Other:
    pass
