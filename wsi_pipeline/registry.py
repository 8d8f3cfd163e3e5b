"""One small registry: names to makers, no silent overwriting, a miss lists what there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from wsi_pipeline.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind (slide backends, segmenters, encoders, MIL models).

    Command-line choices are read from it, so what is registered is what can be asked for.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a thing under `name`; raises UsageError if the name is taken."""

        def add(item: T) -> T:
            """File `item` and give it back."""
            if name in self._items:
                raise UsageError(f"{self.kind} {name!r} is registered twice")
            self._items[name] = item
            return item

        return add

    def get(self, name: str) -> T:
        """The thing filed under `name`; raises UsageError listing the known names on a miss."""
        try:
            return self._items[name]
        except KeyError:
            known = ", ".join(self.names())
            raise UsageError(f"unknown {self.kind} {name!r}", todo=f"Known: {known}") from None

    def names(self) -> tuple[str, ...]:
        """All names, in the order they were registered."""
        return tuple(self._items)

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)
