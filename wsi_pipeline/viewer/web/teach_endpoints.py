"""Endpoints of marks and jobs: drawing marks, the labels they give, tuning on them, what to mark next."""

from __future__ import annotations

import json
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from wsi_pipeline.errors import LabelError, UsageError
from wsi_pipeline.geometry import Size
from wsi_pipeline.viewer.next_to_mark import next_to_mark
from wsi_pipeline.viewer.web.slide_endpoints import number
from wsi_pipeline.viewer.web.viewer import Viewer


class TeachEndpoints:
    """Answers requests for marks and jobs."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer

    def marks(self, request: Request) -> Response:
        """The marks of a slide; only their revision if the page already has that one (`after`)."""
        found = self._viewer.marks.read(self._viewer.library.record(request.path_params["slide"]).slide_id)
        if number(request, "after", -1) == found["revision"]:
            return JSONResponse({"revision": found["revision"]})
        return JSONResponse(found)

    async def change(self, request: Request) -> Response:
        """Put and delete marks; answers with all marks of the slide."""
        body = await _json(request)
        return await run_in_threadpool(self._change, request.path_params["slide"], body)

    def _change(self, slide_id: str, body: dict[str, Any]) -> Response:
        facts = self._viewer.library.facts(slide_id)
        size = Size(facts["width"], facts["height"])
        try:
            return JSONResponse(self._viewer.marks.change(slide_id, body.get("changes"), size))
        except LabelError as error:  # the file on disk is in the way, not the change: the page keeps it and tries again
            return JSONResponse({"error": error.what, "todo": error.todo}, 409)

    def teaching(self, request: Request) -> Response:
        """The labelled patches from all marks, classes with their colours, and the command that tunes on them."""
        return JSONResponse(self._viewer.teaching())

    async def tune(self, request: Request) -> Response:
        """Tune on the marks, then classify the slide in view, then the cohort."""
        body = await _json(request)
        return await run_in_threadpool(self._tune, body)

    def _tune(self, body: dict[str, Any]) -> Response:
        slide = body.get("slide")
        if slide is not None and not isinstance(slide, str):
            raise UsageError("slide must be the id of a slide")
        return JSONResponse(self._viewer.tune(slide))

    def jobs(self, request: Request) -> Response:
        """All jobs, newest first."""
        return JSONResponse(self._viewer.jobs.all())

    def job(self, request: Request) -> Response:
        """One job with the end of its log."""
        return JSONResponse(self._viewer.jobs.one(request.path_params["number"]))

    async def stop(self, request: Request) -> Response:
        """Stop a job."""
        return JSONResponse(await run_in_threadpool(self._viewer.jobs.stop, request.path_params["number"]))

    def next_to_mark(self, request: Request) -> Response:
        """The patches whose marks would help the model most."""
        model = request.query_params.get("model") or self._viewer.tuned
        count = min(max(1, number(request, "count", 24)), 100)
        found = next_to_mark(self._viewer.library, self._viewer.marks, model, count)
        shown = self._viewer.command("view", "--next-to-mark", str(count), "--classified-by", model)
        return JSONResponse({"patches": found.patches, "note": found.note, "command": shown})


async def _json(request: Request) -> dict[str, Any]:
    """The body of a request; raises UsageError unless it is a JSON object."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise UsageError("the body is not JSON") from None
    if not isinstance(body, dict):
        raise UsageError("the body must be a JSON object")
    return body
