"""Pages of the viewer in a browser: servers for them, and what a hand does there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.browser import Browser
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import UsageError
from wsi_pipeline.store.schema import CLASS_FORMAT
from wsi_pipeline.store.tables.class_table import write_classes
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.web.serve import LOOPBACK, listen, serve_in_thread
from wsi_pipeline.viewer.web.viewer import Viewer

ROOT = Path(__file__).resolve().parents[2]
CARDS = "[...document.querySelectorAll('.card .title span:first-child')].map(e => e.innerText)"
READY = "document.querySelector('.openseadragon-canvas canvas')?.width > 0"


class Server:
    """`wsi-pipeline view` as its own process."""

    def __init__(self, run: RunDir) -> None:
        self.port = _own_port()
        self.run = run
        self.start()

    def start(self) -> None:
        words = ["view", "--run", str(self.run.root), "--no-browser", "--port", str(self.port)]
        command = [sys.executable, "-m", "wsi_pipeline", *words]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        assert self.process.stdout
        self.url = next(line.split()[1] for line in self.process.stdout if line.startswith("open http"))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def _own_port() -> int:
    """A free port that no other worker of the tests takes while its server is away: each has a hundred of its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for port in range(20_000 + 100 * worker, 20_100 + 100 * worker):
        with contextlib.suppress(UsageError), listen(LOOPBACK, port):
            return port
    raise AssertionError("no free port")


class Own:
    """The viewer served from a thread of the tests: quicker than a process."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._server, address = serve_in_thread(Viewer(Library.of_run(run)), in_frames=False)
        self.url = address.url

    def kill(self) -> None:
        self._server.should_exit = True


def place(browser: Browser, x: float, y: float) -> tuple[float, float]:
    """Window coordinates of a point at fractions of the first pane."""
    box = browser.run(
        "(r => [r.left, r.top, r.width, r.height])(document.querySelector('.stage').getBoundingClientRect())"
    )
    return box[0] + x * box[2], box[1] + y * box[3]


def open_slide_page(browser: Browser, server: Own | Server, name: str, query: str = "", **window: Any) -> None:
    browser.open("about:blank")
    browser.open(f"{server.url}#/slides/{name}{query}", **window)
    browser.wait(READY)
    browser.wait("document.querySelector('[data-layer]') !== null")


def features(run: RunDir, name: str) -> list[dict[str, Any]]:
    path = run.annotation(name)
    return json.loads(path.read_text())["features"] if path.is_file() else []


def write_class_map(run: RunDir, name: str, probabilities: NDArray[np.float32], model: str = "pathotune:marks") -> None:
    """A class store as `classify` writes it, with these probabilities (N, 2) of `gland` and `stroma`."""
    table = read_patch_table(run.patch_store(name))
    extra = {"revision": 1, "patches": len(probabilities), "classes": ["gland", "stroma"], "warning": "",
             "fractions": {"gland": 0.5, "stroma": 0.5}, "unclear": 0.0}  # fmt: skip
    header = replace(table.header, format=CLASS_FORMAT, parent_digest=table.header.digest, digest="x", extra=extra)
    path = run.class_store(model, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_classes(path, header, table.geometry, table.grid.coords, probabilities)


def wait_for(what: Any, seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return value


def add_class(browser: Browser, name: str) -> None:
    browser.run("document.querySelector('#tab-teach').click()")
    browser.run(f"document.querySelector('form.inline input').value = {json.dumps(name)}")
    browser.run("document.querySelector('form.inline button').click()")
