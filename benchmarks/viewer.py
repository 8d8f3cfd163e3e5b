"""Tiles of the viewer beside OpenSlide's DeepZoomGenerator and large-image's tile sources, behind the same server.

    pip install large-image[openslide,tiff]     (in an environment beside this package's; without it, two are compared)
    python benchmarks/viewer.py SLIDE [--tiles 2000] [--connections 4] [--rounds 3]
    python benchmarks/viewer.py SLIDE --minutes 20 [--pace 100]

Each serves one slide from a process of its own with the viewer's server: the same uvicorn settings, access control and
answers for tiles, only the source of the tiles differs; tiles of about 256 pixels. Four connections that are kept open
walk over the slide at random, each step to a neighbouring tile, now and then to another level or a far place; all see
the same walks, one after the other. Printed for the first walk, on which every tile is new, and for the median of
later ones, on which each source profits from its cache: tiles per second, milliseconds per tile, and the server's
processor time per tile, which other work on the machine changes less.

first view    from the first request to a process that has not opened the slide yet to the last tile of a 1280 x 800
              view of the whole slide
--minutes N   instead, walk over the viewer's tiles for N minutes, --pace tiles per second, and print the server's
              memory every minute: it should not grow
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import math
import random
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

SOURCES = {"large_image": "large_image", "large_image_tiff": "large_image_source_tiff"}
NAMES = {
    "viewer": "viewer", "openslide": "OpenSlide's DeepZoomGenerator", "large_image": "large-image, its own choice",
    "large_image_tiff": "large-image, TIFF source",
}  # fmt: skip
HEADS = (
    "first walk: tiles per second", "median ms", "p99 ms", "CPU ms", "later walks: tiles per second", "median ms",
    "p99 ms", "CPU ms", "kB per tile", "first view, s",
)  # fmt: skip
TOKEN = "benchmark"
TILE_PX, JUMP, OTHER_LEVEL = 256, 0.03, 0.06
VIEW = (1280, 800)

Tiles = Callable[[int, int, int], bytes]
Levels = list[tuple[float, int, int]]
"""How far each level is shrunk, its columns and rows."""


class Walked(NamedTuple):
    """Tiles per second, milliseconds of each, bytes of all, milliseconds of the server's processor time per tile."""

    rate: float
    times: list[float]
    size: int
    work: float


@dataclass(frozen=True)
class Pyramid:
    """A tile source: its levels, coarsest first, and its tiles by level, column and row."""

    levels: Levels
    tile: Tiles


def of_openslide(path: Path) -> Pyramid:
    """DeepZoom tiles as OpenSlide's own example server makes them."""
    import openslide
    from openslide.deepzoom import DeepZoomGenerator

    zoom = DeepZoomGenerator(openslide.OpenSlide(str(path)), tile_size=TILE_PX - 2, overlap=1, limit_bounds=False)

    def tile(level: int, column: int, row: int) -> bytes:
        out = io.BytesIO()
        zoom.get_tile(level, (column, row)).save(out, "JPEG", quality=75)
        return out.getvalue()

    most = zoom.level_count - 1
    return Pyramid([(2.0 ** (most - k), *zoom.level_tiles[k]) for k in range(zoom.level_count)], tile)


def of_large_image(path: Path, source: str) -> Pyramid:
    """Tiles of large-image, with its default cache."""
    found = importlib.import_module(source).open(str(path))
    meta, levels = found.getMetadata(), []
    for k in range(meta["levels"]):
        shrink = 2.0 ** (meta["levels"] - 1 - k)
        width, height = (math.ceil(meta[name] / shrink) for name in ("sizeX", "sizeY"))
        levels.append((shrink, math.ceil(width / meta["tileWidth"]), math.ceil(height / meta["tileHeight"])))
    return Pyramid(levels, lambda level, column, row: bytes(found.getTile(column, row, level)))


class Tiled:
    """A tile source in the form in which the viewer's server takes one; none of its tiles counts as at hand."""

    def __init__(self, open_pyramid: Callable[[], Pyramid]) -> None:
        self._open, self._lock = open_pyramid, threading.Lock()
        self._held: Pyramid | None = None

    @property
    def pyramid(self) -> Pyramid:
        """Opened at the first request."""
        with self._lock:
            self._held = self._held or self._open()
        return self._held

    def tile_at_once(self, *_: Any) -> None:
        """None: these sources cannot tell whether they would have to decode."""

    def tile(self, slide_id: str, level: int, column: int, row: int) -> Any:
        """One tile."""
        from wsi_pipeline.viewer.deep_zoom import JPEG, Tile

        return Tile(self.pyramid.tile(level, column, row), JPEG)

    async def facts(self, scope: Any, receive: Any, send: Any) -> None:
        """Levels in tiles of one by one: the answer to all other requests."""
        from starlette.responses import JSONResponse

        whole = self.pyramid.levels[-1][1:]
        sizes = [(columns, rows, whole[0] / shrink) for shrink, columns, rows in self.pyramid.levels]
        names = ("width", "height", "shown")
        levels = [{**dict(zip(names, size, strict=True)), "tile_width": 1, "tile_height": 1} for size in sizes]
        await JSONResponse({"levels": levels})(scope, receive, send)


def serve(kind: str, path: Path, port: int) -> None:
    """Serve one kind until killed; the slide is opened at the first request."""
    import uvicorn

    from wsi_pipeline.viewer.library import Library
    from wsi_pipeline.viewer.web.access import Access
    from wsi_pipeline.viewer.web.app import make_app
    from wsi_pipeline.viewer.web.serve import SETTINGS
    from wsi_pipeline.viewer.web.tile_answers import TileAnswers
    from wsi_pipeline.viewer.web.viewer import Viewer

    if kind == "viewer":
        app = make_app(Viewer(Library.of_files([path])), TOKEN)
    else:
        tiles = Tiled(lambda: of_openslide(path) if kind == "openslide" else of_large_image(path, SOURCES[kind]))
        app = Access(TileAnswers(tiles.facts, tiles), TOKEN)  # type: ignore[arg-type]
    uvicorn.run(app, port=port, **SETTINGS)


def walk(levels: Levels, seed: int) -> Iterator[str]:
    """Level, column and row along a random walk; the place is kept in fractions of the slide: the same for all."""
    rng = random.Random(seed)
    shrink, x, y = 1.0, rng.random(), rng.random()
    while True:
        if rng.random() < OTHER_LEVEL:
            shrink = 4.0 ** rng.randrange(3)
        if rng.random() < JUMP:
            x, y = rng.random(), rng.random()
        number = min(range(len(levels)), key=lambda k: abs(math.log(levels[k][0] / shrink)))
        _, columns, rows = levels[number]
        way = rng.choice(((1, 0), (-1, 0), (0, 1), (0, -1)))
        x, y = (min(0.999, max(0.0, v + d / n)) for v, d, n in ((x, way[0], columns), (y, way[1], rows)))
        yield f"{number}/{int(x * columns)}_{int(y * rows)}"


@dataclass(eq=False)
class Connection:
    """One connection that is kept open, with the answer that it is waiting for."""

    port: int
    started: float = 0.0
    parts: list[bytes] = field(default_factory=list)
    missing: int = 0

    def __post_init__(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, address: str) -> None:
        """Send a request."""
        self.started, self.parts, self.missing = time.perf_counter(), [], 0
        host = f"127.0.0.1:{self.port}"
        self.socket.sendall(f"GET /{TOKEN}/{address} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    def take(self) -> bool:
        """Take what has arrived; whether the answer is complete. Ends the program if its status is not 200."""
        part = self.socket.recv(1 << 18)
        self.parts.append(part)
        self.missing -= len(part)
        if not part or len(self.parts) == 1:
            head, _, body = part.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"refused: {part[:300]!r}")
            size = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            self.missing = int(size.partition(b":")[2]) - len(body)
        return self.missing <= 0

    def get(self, address: str) -> bytes:
        """Ask, wait, and return the body."""
        self.ask(address)
        while not self.take():
            pass
        return b"".join(self.parts).partition(b"\r\n\r\n")[2]


class Served:
    """One kind in a process of its own."""

    def __init__(self, kind: str, path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        words = [sys.executable, __file__, str(path), "--serve", kind, "--port", str(self.port)]
        self.process, self.slide = subprocess.Popen(words), f"slides/{path.stem}"
        self._levels: Levels = []
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
                if self.process.poll() is not None:
                    raise SystemExit(f"{kind} did not start") from None

    def levels(self) -> Levels:
        """The levels, coarsest first."""
        if not self._levels:
            stated = json.loads(Connection(self.port).get(self.slide))["levels"]
            widths = [level.get("shown", level["width"]) for level in stated]
            for level, width in zip(stated, widths, strict=True):
                tiles = (math.ceil(level[side] / level[f"tile_{side}"]) for side in ("width", "height"))
                self._levels.append((widths[-1] / width, *tiles))
        return self._levels

    def first_view(self) -> float:
        """Seconds until a view of the whole slide has all its tiles."""
        start, levels = time.perf_counter(), self.levels()
        fits = [
            k
            for k, (_, *tiles) in enumerate(levels)
            if any(n * TILE_PX >= px for n, px in zip(tiles, VIEW, strict=True))
        ]
        number, connection = min(fits, default=len(levels) - 1), Connection(self.port)
        for row in range(levels[number][2]):
            for column in range(levels[number][1]):
                connection.get(f"{self.slide}/tile/{number}/{column}_{row}")
        return time.perf_counter() - start

    def walk(self, count: int, connections: int, seed: int, pace: float = 0.0) -> Walked:
        """Ask for `count` tiles, as fast as they come or `pace` per second."""
        levels, place = self.levels(), f"{self.slide}/tile/"
        ways = {Connection(self.port): walk(levels, seed * 100 + k) for k in range(connections)}
        times: list[float] = []
        size, asked, start, before = 0, len(ways), time.perf_counter(), self.cpu()
        with selectors.DefaultSelector() as ready:
            for connection, way in ways.items():
                ready.register(connection.socket, selectors.EVENT_READ, connection)
                connection.ask(place + next(way))
            while len(times) < count:
                for key, _ in ready.select():
                    connection = key.data
                    if not connection.take():
                        continue
                    times.append(1000 * (time.perf_counter() - connection.started))
                    size += sum(map(len, connection.parts))
                    if pace:
                        time.sleep(max(0.0, start + asked / pace - time.perf_counter()))
                    connection.ask(place + next(ways[connection]))
                    asked += 1
        seconds = time.perf_counter() - start
        for connection in ways:
            connection.socket.close()
        return Walked(len(times) / seconds, times, size, 1000 * (self.cpu() - before) / len(times))

    def cpu(self) -> float:
        """Seconds of processor time that the server has used."""
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)


def memory(served: Served, minutes: int, connections: int, pace: float) -> None:
    """Print the memory of the server every minute of a walk."""
    process = psutil.Process(served.process.pid)
    for minute in range(minutes):
        walked = served.walk(max(1, int(60 * pace)), connections, 1000 + minute, pace)
        facts = f"{process.memory_info().rss / 1e6:.1f} MB, {process.num_fds()} files and sockets"
        print(f"minute {minute + 1}: {facts}, {walked.rate:.0f} tiles per second", flush=True)


def line(name: str, walks: list[Walked], view: float) -> str:
    """One line of the table: the first walk, then the later ones."""
    cells = []
    for part in (walks[:1], walks[1:]):
        times = sorted(value for walked in part for value in walked.times)
        late = times[min(len(times) - 1, int(0.99 * len(times)))]
        rate = statistics.median(walked.rate for walked in part)
        cells += [f"{rate:.0f}", f"{statistics.median(times):.2f}", f"{late:.2f}"]
        cells.append(f"{statistics.median(walked.work for walked in part):.2f}")
    size = sum(walked.size for walked in walks) / sum(len(walked.times) for walked in walks)
    return f"| {name} | {' | '.join(cells)} | {size / 1e3:.1f} | {view:.2f} |"


def main() -> None:
    """Print one row for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="walks after the first one")
    parser.add_argument("--minutes", type=int, default=0)
    parser.add_argument("--pace", type=float, default=100)
    parser.add_argument("--serve", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.slide, args.port)
        return
    kinds = [kind for kind in NAMES if kind not in SOURCES or importlib.util.find_spec(SOURCES[kind])]
    each = {kind: Served(kind, args.slide) for kind in (kinds[:1] if args.minutes else kinds)}
    try:
        if args.minutes:
            memory(each["viewer"], args.minutes, args.connections, args.pace)
            return
        views = {kind: served.first_view() for kind, served in each.items()}
        found: dict[str, list[Walked]] = {kind: [] for kind in kinds}
        for number in range(args.rounds + 1):
            for kind, served in each.items():
                found[kind].append(served.walk(args.tiles, args.connections, number))
        print(f"| tiles by | {' | '.join(HEADS)} |\n|---{'|--:' * len(HEADS)}|")
        for kind, walks in found.items():
            print(line(NAMES[kind], walks, views[kind]))
    finally:
        for served in each.values():
            served.process.kill()


if __name__ == "__main__":
    main()
