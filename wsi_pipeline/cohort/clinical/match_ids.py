"""Match ids of two tables: ids that are equal, then ids that differ only in spelling."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from wsi_pipeline.cohort.table_words import patient_key
from wsi_pipeline.wording import counted, listed


@dataclass(frozen=True)
class IdMatch:
    """Which id of our table matches which of the other.

    found      ours -> theirs
    respelt    pairs (ours, theirs) of `found` that are spelt differently
    doubtful   ids that are ambiguous, because several of one side could match; they are not matched
    """

    found: Mapping[str, str]
    respelt: tuple[tuple[str, str], ...] = ()
    doubtful: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.found)

    def notes(self, noun: str) -> list[str]:
        """Sentences about ids that are spelt differently; `noun` says what they identify."""
        sentences = []
        if self.respelt:
            pairs = listed([f"{ours!r} = {theirs!r}" for ours, theirs in self.respelt], 3)
            sentences.append(
                f"{counted(len(self.respelt), f'{noun} id')} matched although spelled differently: {pairs}"
            )
        for group in self.doubtful[:3]:
            sentences.append(f"{noun} ids {listed([repr(name) for name in group])} may be the same: not matched")
        return sentences


def match_ids(ours: Iterable[str], theirs: Iterable[str], key: Callable[[str], str] = patient_key) -> IdMatch:
    """Match ids: equal ones first, then those with the same `key` if each side has only one with that key."""
    left, right = dict.fromkeys(ours), dict.fromkeys(theirs)
    found = {name: name for name in left if name in right}
    taken = set(found)
    groups: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, names in enumerate((left, right)):
        for name in names:
            groups[key(name)][side].append(name)
    respelt, doubtful = [], []
    for mine, their in groups.values():
        if not mine or not their or taken.issuperset([*mine, *their]):
            continue
        if len(mine) == len(their) == 1:
            found[mine[0]] = their[0]
            respelt.append((mine[0], their[0]))
        else:
            doubtful.append(tuple(dict.fromkeys([*mine, *their])))
    order = {name: found[name] for name in left if name in found}
    return IdMatch(order, tuple(respelt), tuple(doubtful))
