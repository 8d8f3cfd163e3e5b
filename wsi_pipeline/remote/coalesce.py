"""Ranges of a file joined into fewer requests, without reading much that nobody asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Range = tuple[int, int]
"""(start, stop) in bytes, stop exclusive."""

MOST_BYTES = 1 << 20
"""Longest request made of several ranges: long enough that 20 ms of waiting do not count, short enough to arrive."""
GAPS = 0.05
"""Bytes between ranges that may be read along, as a part of the bytes that were asked for."""
CHUNK_BYTES = 4 << 20
"""Ranges are joined within stretches of this many bytes in the order of their use, so that what is read is used soon.
"""
FIRST_BYTES, FIRST_CHUNK_BYTES = 128 << 10, 2 << 20
"""The same at the beginning. Requests share the link, so that of 16 long ones the first arrives with the last."""


@dataclass(frozen=True)
class JoinedRange:
    """One request and the ranges that it serves."""

    start: int
    stop: int
    ranges: tuple[Range, ...]


def coalesce(ranges: Iterable[Range], most: int = MOST_BYTES, gaps: float = GAPS) -> list[JoinedRange]:
    """Runs that cover all ranges, sorted; equal, overlapping and touching ranges share a run of at most `most` bytes.

    Ranges with little between them share one too, the smallest gaps first, while all gaps together are at most `gaps`
    of the bytes asked for. A range longer than `most` is a run of its own.
    """
    wanted = sorted({(start, stop) for start, stop in ranges if stop > start})
    if not wanted:
        return []
    bridged = _bridged(wanted, gaps)
    runs, start, stop, inside = [], wanted[0][0], wanted[0][1], [wanted[0]]
    for number, item in enumerate(wanted[1:], 1):
        end = max(stop, item[1])
        if item[0] < stop or (number in bridged and end - start <= most):
            stop = end
            inside.append(item)
        else:
            runs.append(JoinedRange(start, stop, tuple(inside)))
            start, stop, inside = item[0], item[1], [item]
    return [*runs, JoinedRange(start, stop, tuple(inside))]


def _bridged(wanted: Sequence[Range], gaps: float) -> set[int]:
    """Numbers of the ranges before which the gap may be read along."""
    between, reach, asked = [], wanted[0][1], wanted[0][1] - wanted[0][0]
    for number, (start, stop) in enumerate(wanted[1:], 1):
        between.append((max(0, start - reach), number))
        asked += max(0, stop - max(reach, start))
        reach = max(reach, stop)
    left, allowed = asked * gaps, set()
    for gap, number in sorted(between):
        if gap > left:
            break
        left -= gap
        allowed.add(number)
    return allowed


def runs_in_order(ranges: Iterable[Range], chunk: int = CHUNK_BYTES) -> list[JoinedRange]:
    """Runs for ranges that will be read in the given order, each once: the earliest needed first."""
    return [run for part, most in _chunks(ranges, chunk) for run in _by_use(part, most)]


def _by_use(part: Sequence[Range], most: int) -> list[JoinedRange]:
    place = {item: number for number, item in enumerate(part)}
    return sorted(coalesce(part, most), key=lambda run: min(place[item] for item in run.ranges))


def _chunks(ranges: Iterable[Range], chunk: int) -> Iterator[tuple[list[Range], int]]:
    """The ranges in stretches, each with the longest request to make of it."""
    seen, part, size = set[Range](), list[Range](), 0
    limit, most = min(chunk, FIRST_CHUNK_BYTES), FIRST_BYTES
    for item in ranges:
        if item in seen:
            continue
        seen.add(item)
        part.append(item)
        size += item[1] - item[0]
        if size >= limit:
            yield part, most
            part, size, limit, most = [], 0, chunk, MOST_BYTES
    if part:
        yield part, most
