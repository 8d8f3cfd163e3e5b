"""Run the trainings of some tables and print them as Markdown; what has run already is not run again.

    python -m benchmarks.tuning search methods                 two tables, 3 seeds, standard size
    python -m benchmarks.tuning --size small prompts counts    smaller trainings
    python -m benchmarks.tuning --show methods                 only print, with what has run
    python -m benchmarks.tuning --workers 1                    all tables; on a GPU one training at a time
    python -m benchmarks.tuning --show --write docs/results.md put the tables where the document marks them
    python -m benchmarks.tuning --size small --seeds 8 parts --only crc      only the rows of a table that are named so
    python -m benchmarks.tuning --size small --seeds 4,5,6 parts             some seeds; the others are added later

Rows of a table run seed by seed, so that an interrupted table compares all of its rows. Standard: 4,000 patches, 8
epochs; about five minutes of one core a training, 20 hours for all tables on two cores.
Results are kept in benchmarks/tuning/results.jsonl, one line a training: stop and start as you like.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from benchmarks.tuning.plans import SIZES, Plan, best_rates
from benchmarks.tuning.queue import Results, work_off
from benchmarks.tuning.tables import TABLES


def main() -> None:
    """Parse the words, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; none: all")
    parser.add_argument("--size", choices=SIZES, default="standard")
    parser.add_argument("--seeds", type=seeds_of, default=(0, 1, 2), help="how many, from 0, or a list: 4,5,6")
    parser.add_argument("--only", default="", metavar="WORDS", help="run rows that contain one of these: crc,lora")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Markdown with <!-- table NAME --> ... <!-- end -->")
    given = parser.parse_args()
    unknown = sorted(set(given.tables) - set(TABLES))
    if unknown:
        parser.error(f"unknown table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    results = Results()
    for name in given.tables or TABLES:
        plan = Plan(SIZES[given.size], given.seeds, {})
        plan = Plan(plan.size, plan.seeds, best_rates(plan, results))
        table = TABLES[name]
        if not given.show:
            work_off(table.only(plan, [word for word in given.only.split(",") if word]), results, given.workers)
        text = table.write(plan, results)
        print(f"\n### {table.title}\n\n{text}\n", flush=True)
        if given.write:
            given.write.write_text(put(given.write.read_text(), name, text))


def seeds_of(text: str) -> tuple[int, ...]:
    """`3` -> 0, 1, 2; `4,5` -> 4, 5."""
    return tuple(map(int, text.split(","))) if "," in text else tuple(range(int(text)))


def put(document: str, name: str, text: str) -> str:
    """The document with a table between its marks, where it has them."""
    marks = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
    return re.sub(marks, lambda found: f"{found[1]}\n{text}\n\n{found[2]}", document, flags=re.DOTALL)


if __name__ == "__main__":
    main()
