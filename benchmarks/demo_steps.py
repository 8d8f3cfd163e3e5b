"""`make demo`, command by command: processor seconds with all processes, wall-clock seconds.

    python benchmarks/demo_steps.py [--beside CHECKOUT] [--only tile train-mil]

The commands are those of each checkout's Makefile. With `--beside`, each command of another checkout runs in turn with
ours, in a folder of its own; a command that it does not have is left out there. `--only` shows some of them; the others
run too, since later ones need what they write.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from waiting import adopt_orphans, seconds  # noqa: E402


def steps(makefile: str) -> list[list[str]]:
    """The commands of the target `demo`, with the variables of the Makefile put in."""
    values = dict(re.findall(r"^([A-Z]+) [:?]?= *(.*)$", makefile, flags=re.MULTILINE))
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
    assert recipe is not None
    found = []
    for line in re.findall(r"^\t@\$\(BIN\)/wsi-pipeline (.*)$", recipe[1], flags=re.MULTILINE):
        words = line.partition("||")[0].replace("$(DEMO)", ".")
        found.append(shlex.split(re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], words)))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="another checkout, measured in turn")
    parser.add_argument("--only", nargs="*", default=[], help="commands to show")
    args = parser.parse_args()
    adopt_orphans()
    checkouts = [args.beside.resolve(), ROOT] if args.beside else [ROOT]
    sums = [0.0] * len(checkouts)
    print("| command | " + " | ".join(f"{c.name}: processor s | wall s" for c in checkouts) + " |")
    print("|---|" + "--:|--:|" * len(checkouts), flush=True)
    with tempfile.TemporaryDirectory() as name:
        makefiles = [(checkout / "Makefile").read_text(encoding="utf-8") for checkout in checkouts]
        recipes = [{words[0]: words for words in steps(makefile)} for makefile in makefiles]
        for command in recipes[-1]:
            cells = []
            for place, (checkout, recipe) in enumerate(zip(checkouts, recipes, strict=True)):
                folder = Path(name) / str(place)
                folder.mkdir(exist_ok=True)
                if command not in recipe:
                    cells.append(" | ")
                    continue
                used, wall = seconds(checkout, recipe[command], folder)
                sums[place] += used
                cells.append(f"{used:.1f} | {wall:.1f}")
            if not args.only or command in args.only:
                print(f"| `{command}` | " + " | ".join(cells) + " |", flush=True)
    print("| all | " + " | ".join(f"{used:.1f} | " for used in sums) + "|")


if __name__ == "__main__":
    main()
