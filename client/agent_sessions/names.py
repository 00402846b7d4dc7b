"""Enum members, classes and modules as dotted names, and back.

A name that was read from storage is looked up among the objects that were
registered, and nowhere else: nothing is imported and no attribute is followed.
"""

from enum import Enum
from types import ModuleType
from typing import TypeVar

from agent_sessions.errors import NotRegistered

_Object = TypeVar("_Object", bound=type | ModuleType)


def dotted_name(thing: type | ModuleType | Enum) -> str:
    """Return the name by which Python finds `thing`, for example `package.Color.RED`."""
    if isinstance(thing, ModuleType):
        return thing.__name__
    if isinstance(thing, Enum):
        return f"{dotted_name(type(thing))}.{thing.name}"
    return f"{thing.__module__}.{thing.__qualname__}"


class NameRegistry:
    """The classes (enums too) and modules that stored names may stand for."""

    def __init__(self) -> None:
        self._by_name: dict[str, type | ModuleType] = {}
        # By id, because a metaclass may make a class unhashable; _by_name keeps the object alive.
        self._names: dict[int, str] = {}

    def register(self, thing: _Object, name: str | None = None) -> _Object:
        """Register a class or module and return it; usable as a decorator.

        Raises ValueError when the name stands for another object already, or the
        object has another name: either way what is stored could not be read back.
        """
        if not isinstance(thing, type | ModuleType):
            raise TypeError(f"only classes and modules can be registered, not {type(thing).__name__}")
        name = name or dotted_name(thing)
        if self._by_name.get(name, thing) is not thing:
            raise ValueError(f"{name} is registered for another object")
        if self._names.get(id(thing), name) != name:
            raise ValueError(f"{name} is registered as {self._names[id(thing)]}")
        self._by_name[name] = thing
        self._names[id(thing)] = name
        return thing

    def name_of(self, thing: type | ModuleType | Enum) -> str:
        """Return the name that `lookup` finds `thing` by; raises NotRegistered."""
        if isinstance(thing, Enum):
            return self._member_name(thing)
        name = self._names.get(id(thing))
        if name is None:
            raise NotRegistered(dotted_name(thing))
        return name

    def lookup(self, name: str) -> type | ModuleType | Enum:
        """Return the registered class, module or enum member of that name; raises NotRegistered."""
        found = self._by_name.get(name)
        if found is not None:
            return found
        owner, _, member = name.rpartition(".")
        enum = self._by_name.get(owner)
        if isinstance(enum, type) and issubclass(enum, Enum) and member in enum.__members__:
            return enum.__members__[member]
        raise NotRegistered(name)

    def knows(self, name: str) -> bool:
        """Tell whether `lookup` finds the name."""
        try:
            self.lookup(name)
        except NotRegistered:
            return False
        return True

    def _member_name(self, member: Enum) -> str:
        name = f"{self.name_of(type(member))}.{member.name}"
        # Combined flags and names with a dot inside have no name that leads back to them.
        if not self.knows(name) or self.lookup(name) is not member:
            raise NotRegistered(name)
        return name
