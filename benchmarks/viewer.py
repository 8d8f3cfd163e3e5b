"""Tiles of the viewer beside OpenSlide's DeepZoomGenerator and large-image's tile source, behind the same server.

    pip install large-image[openslide,tiff]     (in an environment beside this package's; without it, two are compared)
    python benchmarks/viewer.py SLIDE [--tiles 2000] [--connections 4] [--rounds 3] [--minutes 0]

Each serves one slide from a process of its own: starlette and uvicorn, the same settings, tiles of about 256 pixels.
Four connections that are kept open walk over the slide at random, each step to a neighbouring tile, now and then to
another level or a far place; all three see the same walk. The first round warms up and is not counted; the others
take turns. Printed: tiles per second, median and 99th percentile of milliseconds per tile, bytes per tile.

first paint   from the first request to a process that has not opened the slide yet to the last tile of a 1280 x 800
              view of the whole slide
--minutes N   then walk over the viewer's tiles for N minutes and print its memory every minute: it should not grow
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import math
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

KINDS = ("viewer", "openslide", "large_image")
TILE_PX, JUMP, OTHER_LEVEL = 256, 0.03, 0.06
VIEW = (1280, 800)

Tiles = Callable[[int, int, int], bytes]


@dataclass(frozen=True)
class Pyramid:
    """The levels of a tile source, finest first: how far each is shrunk, its columns and rows."""

    levels: tuple[tuple[float, int, int], ...]
    tile: Tiles


def source(kind: str, path: Path) -> Pyramid:
    """The tiles of a slide by one of KINDS."""
    return {"viewer": of_viewer, "openslide": of_openslide, "large_image": of_large_image}[kind](path)


def of_viewer(path: Path) -> Pyramid:
    """The tiles as the viewer's server sends them: stored ones unchanged, encoded ones kept in its cache."""
    from wsi_pipeline.viewer.library import Library

    library = Library.of_files([path])
    (slide_id,) = library.records
    with library.pool.use(slide_id) as zoom:
        levels = zoom.levels[::-1]
    facts = tuple((levels[0].size.width / level.size.width, level.columns, level.rows) for level in levels)
    return Pyramid(facts, lambda level, column, row: library.tile(slide_id, len(levels) - 1 - level, column, row).data)


def of_openslide(path: Path) -> Pyramid:
    import openslide
    from openslide.deepzoom import DeepZoomGenerator

    zoom = DeepZoomGenerator(openslide.OpenSlide(str(path)), tile_size=TILE_PX - 2, overlap=1, limit_bounds=False)
    most = zoom.level_count - 1

    def tile(level: int, column: int, row: int) -> bytes:
        out = io.BytesIO()
        zoom.get_tile(most - level, (column, row)).save(out, "JPEG", quality=75)
        return out.getvalue()

    facts = tuple((2.0**k, *zoom.level_tiles[most - k]) for k in range(zoom.level_count))
    return Pyramid(facts, tile)


def of_large_image(path: Path) -> Pyramid:
    import large_image

    found = large_image.open(str(path))
    meta = found.getMetadata()
    most = meta["levels"] - 1
    facts = []
    for k in range(meta["levels"]):
        width, height = (math.ceil(meta[name] / 2**k) for name in ("sizeX", "sizeY"))
        facts.append((2.0**k, math.ceil(width / meta["tileWidth"]), math.ceil(height / meta["tileHeight"])))
    return Pyramid(tuple(facts), lambda level, column, row: bytes(found.getTile(column, row, most - level)))


def serve(kind: str, path: Path, port: int) -> None:
    """Serve /levels and /LEVEL/COLUMN_ROW until killed; the slide is opened at the first request."""
    import threading

    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    held: list[Pyramid] = []
    lock = threading.Lock()

    def pyramid() -> Pyramid:
        with lock:
            if not held:
                held.append(source(kind, path))
        return held[0]

    def levels(request: Any) -> Response:
        return JSONResponse(pyramid().levels)

    def tile(request: Any) -> Response:
        at = request.path_params
        return Response(pyramid().tile(at["level"], at["column"], at["row"]), media_type="image/jpeg")

    routes = [Route("/levels", levels), Route("/{level:int}/{column:int}_{row:int}", tile)]
    uvicorn.run(Starlette(routes=routes), port=port, log_level="error", access_log=False)


def walk(levels: list[list[float]], seed: int, count: int) -> Iterator[str]:
    """Addresses of tiles along a random walk; the place is kept in fractions of the slide, so that all see the same."""
    rng = random.Random(seed)
    shrink, x, y = 1.0, rng.random(), rng.random()
    for _ in range(count):
        if rng.random() < OTHER_LEVEL:
            shrink = 4.0 ** rng.randrange(3)
        if rng.random() < JUMP:
            x, y = rng.random(), rng.random()
        number = min(range(len(levels)), key=lambda k: abs(math.log(levels[k][0] / shrink)))
        _, columns, rows = levels[number]
        way = rng.choice(((1, 0), (-1, 0), (0, 1), (0, -1)))
        x, y = (min(0.999, max(0.0, v + d / n)) for v, d, n in ((x, way[0], columns), (y, way[1], rows)))
        yield f"/{number}/{int(x * columns)}_{int(y * rows)}"


class Served:
    """One kind in a process of its own."""

    def __init__(self, kind: str, path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        words = [sys.executable, __file__, str(path), "--serve", kind, "--port", str(self.port)]
        self.process = subprocess.Popen(words)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
                if self.process.poll() is not None:
                    raise SystemExit(f"{kind} did not start") from None

    def get(self, connection: http.client.HTTPConnection, address: str) -> bytes:
        connection.request("GET", address)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{address}: status {answer.status}")
        return data

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port)

    def first_paint(self) -> float:
        """Seconds until a view of the whole slide has all its tiles."""
        start, connection = time.perf_counter(), self.connect()
        levels = json.loads(self.get(connection, "/levels"))
        fits = [
            k
            for k, (_, columns, rows) in enumerate(levels)
            if columns * TILE_PX >= VIEW[0] or rows * TILE_PX >= VIEW[1]
        ]
        number = max(fits, default=0)
        for row in range(int(levels[number][2])):
            for column in range(int(levels[number][1])):
                self.get(connection, f"/{number}/{column}_{row}")
        return time.perf_counter() - start

    def round(self, count: int, connections: int, seed: int) -> tuple[float, list[float], int]:
        """Tiles per second, milliseconds of each, bytes of all."""
        levels = json.loads(self.get(self.connect(), "/levels"))

        def one(number: int) -> tuple[list[float], int]:
            connection, times, size = self.connect(), [], 0
            for address in walk(levels, seed * 100 + number, count // connections):
                start = time.perf_counter()
                size += len(self.get(connection, address))
                times.append(1000 * (time.perf_counter() - start))
            return times, size

        start = time.perf_counter()
        with ThreadPoolExecutor(connections) as pool:
            parts = list(pool.map(one, range(connections)))
        seconds = time.perf_counter() - start
        times = [value for part, _ in parts for value in part]
        return len(times) / seconds, times, sum(size for _, size in parts)


def memory(served: Served, minutes: int, connections: int) -> None:
    """Print the memory of the server every minute of a walk."""
    process = psutil.Process(served.process.pid)
    for minute in range(minutes):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            served.round(400, connections, int(time.monotonic() * 1000))
        print(f"minute {minute + 1}: {process.memory_info().rss / 1e6:.0f} MB", flush=True)


def main() -> None:
    """Print one row for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=int, default=0)
    parser.add_argument("--serve", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.slide, args.port)
        return
    from importlib.util import find_spec

    kinds = [kind for kind in KINDS if kind != "large_image" or find_spec("large_image")]
    each = {kind: Served(kind, args.slide) for kind in kinds}
    try:
        paint = {kind: served.first_paint() for kind, served in each.items()}
        found: dict[str, list[tuple[float, list[float], int]]] = {kind: [] for kind in kinds}
        for number in range(args.rounds + 1):
            for kind, served in each.items():
                one = served.round(args.tiles, args.connections, number)
                if number:
                    found[kind].append(one)
        print("| tiles by | tiles a second | median ms | p99 ms | kB a tile | first paint, s |")
        print("|---|--:|--:|--:|--:|--:|")
        for kind, rounds in found.items():
            times = sorted(value for _, part, _ in rounds for value in part)
            rate, size = statistics.median(rate for rate, _, _ in rounds), sum(size for _, _, size in rounds)
            late = times[min(len(times) - 1, int(0.99 * len(times)))]
            cells = (f"{rate:.0f}", f"{statistics.median(times):.2f}", f"{late:.2f}", f"{size / len(times) / 1e3:.1f}")
            print(f"| {kind} | {' | '.join(cells)} | {paint[kind]:.2f} |")
        memory(each["viewer"], args.minutes, args.connections)
    finally:
        for served in each.values():
            served.process.kill()


if __name__ == "__main__":
    main()
