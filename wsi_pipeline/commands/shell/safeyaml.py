"""YAML read with suspicion: plain values only, of bounded size, also after its aliases are followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from wsi_pipeline.errors import UsageError

MAX_BYTES = 1 << 20
MAX_VALUES = 20_000
"""A plan of a run has a few dozen values. Aliases of aliases make billions of a few lines."""


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises UsageError where it cannot be read, is no plain YAML, or is too large."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is larger than {MAX_BYTES >> 20} MB: no plan of a run")
        document = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{path} is no valid YAML: nested too deep") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: no such date; text that is not UTF-8
        raise UsageError(f"{path} is no valid YAML: {error}") from None
    _check_size(document, path)
    return document


class _Loader(yaml.SafeLoader):
    """Plain values only, and no key twice in one place: YAML would take the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node. Raises yaml.YAMLError where a key is there twice."""
        written: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in written:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
                written.add(key.value)
        return super().construct_mapping(node, deep)


def _check_size(document: Any, path: Path) -> None:
    """Walk through the document as if its aliases were written out, up to MAX_VALUES."""
    waiting, seen = [document], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise UsageError(
                f"{path} holds more than {MAX_VALUES} values, its aliases written out", todo="Write it without aliases"
            )
        if isinstance(value, dict):
            waiting.extend(value.keys())
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set):
            waiting.extend(value)
