"""A registry of named things: no silent overwriting, an unknown name is answered with the known ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, Generic, TypeVar

from wsi_pipeline.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind (slide backends, tissue detectors, encoder families, MIL models).

    kind   what is registered, for messages
    names  names known before anything is imported: choices of the command line and of YAML keys come from here
    home   module whose import registers something under each of these names; imported by the first `get`
    """

    def __init__(self, kind: str, names: Sequence[str] = (), home: str = "") -> None:
        self.kind, self._home = kind, home
        self._items: dict[str, T | None] = dict.fromkeys(names)

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers a thing under `name`; raises UsageError if the name is taken."""

        def add(item: T) -> T:
            """Register `item` and return it."""
            if self._items.get(name) is not None:
                raise UsageError(f"{self.kind} {name!r} is registered twice")
            self._items[name] = item
            return item

        return add

    def check(self, name: str) -> None:
        """Raise UsageError listing the known names unless `name` is one of them."""
        if name not in self.names():
            raise UsageError(f"unknown {self.kind} {name!r}", todo=f"Known: {', '.join(self.names())}")

    def get(self, name: str) -> T:
        """The thing registered under `name`; raises UsageError listing the known names if there is none."""
        self.check(name)
        if self._items[name] is None and self._home:
            import_module(self._home)
        item = self._items[name]
        if item is None:
            raise UsageError(f"nothing is registered as {self.kind} {name!r}")
        return item

    def names(self) -> tuple[str, ...]:
        """All names: the declared ones, then others in the order they were registered."""
        return tuple(self._items)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())


class JoinedRegistry(Registry[Any]):
    """The names of several registries as one choice."""

    def __init__(self, *registries: Registry[Any]) -> None:
        super().__init__(registries[0].kind)
        self._registries = registries

    def get(self, name: str) -> Any:
        """The thing registered under `name` in any of them; raises UsageError listing all names if there is none."""
        self.check(name)
        return next(registry for registry in self._registries if name in registry).get(name)

    def names(self) -> tuple[str, ...]:
        """The names of all of them, in order."""
        return tuple(name for registry in self._registries for name in registry.names())
