"""Run the trainings of some tables and print them as Markdown; what has run already is not run again.

    python -m benchmarks.tuning search methods                 two tables, 3 seeds, standard size
    python -m benchmarks.tuning --size small prompts counts    smaller trainings
    python -m benchmarks.tuning --show methods                 only print, with what has run
    python -m benchmarks.tuning --workers 1                    all tables; on a GPU one training at a time
    python -m benchmarks.tuning --show --write docs/results.md put the tables where the document marks them

Standard: 4,000 patches, 8 epochs; about five minutes of one core a training, 20 hours for all tables on two cores.
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
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Markdown with <!-- table NAME --> ... <!-- end -->")
    given = parser.parse_args()
    unknown = sorted(set(given.tables) - set(TABLES))
    if unknown:
        parser.error(f"unknown table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    results = Results()
    for name in given.tables or TABLES:
        plan = Plan(SIZES[given.size], tuple(range(given.seeds)), {})
        plan = Plan(plan.size, plan.seeds, best_rates(plan, results))
        table = TABLES[name]
        if not given.show:
            work_off(table.jobs(plan), results, given.workers)
        text = table.write(plan, results)
        print(f"\n### {table.title}\n\n{text}\n", flush=True)
        if given.write:
            given.write.write_text(put(given.write.read_text(), name, text))


def put(document: str, name: str, text: str) -> str:
    """The document with a table between its marks, where it has them."""
    marks = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
    return re.sub(marks, lambda found: f"{found[1]}\n{text}\n\n{found[2]}", document, flags=re.DOTALL)


if __name__ == "__main__":
    main()
