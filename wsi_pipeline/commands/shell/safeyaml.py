"""Safe YAML: plain values only, with a size limit that also holds with aliases expanded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from wsi_pipeline.errors import UsageError

MAX_BYTES = 1 << 20
MAX_VALUES = 20_000
"""A plan of a run has a few dozen values; nested aliases can turn a few lines into billions."""


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises UsageError if it cannot be read, is not plain YAML, or is too large."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is larger than {MAX_BYTES >> 20} MB, too large for a file of settings")
        document = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{path} is not valid YAML: nested too deep") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: impossible date, not UTF-8
        raise UsageError(f"{path} is not valid YAML: {error}") from None
    _check_size(document, path)
    return document


class _Loader(yaml.SafeLoader):
    """Plain values only, and no duplicate keys: YAML would silently take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node. Raises yaml.YAMLError for a duplicate key."""
        written: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in written:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
                written.add(key.value)
        return super().construct_mapping(node, deep)


def _check_size(document: Any, path: Path) -> None:
    """Walk the document with aliases expanded, up to MAX_VALUES values."""
    waiting, seen = [document], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise UsageError(
                f"{path} has more than {MAX_VALUES} values with its aliases expanded", todo="Write it without aliases"
            )
        if isinstance(value, dict):
            waiting.extend(value.keys())
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set):
            waiting.extend(value)
