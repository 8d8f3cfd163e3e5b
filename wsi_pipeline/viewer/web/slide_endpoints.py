"""Endpoints of slides: tiles, thumbnails, layers, neighbours. Slides are addressed by id."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from wsi_pipeline.errors import UsageError
from wsi_pipeline.geometry import Box
from wsi_pipeline.viewer.cohort_rows import RowQuery
from wsi_pipeline.viewer.deep_zoom import Tile
from wsi_pipeline.viewer.web.viewer import Viewer

FOREVER = {"Cache-Control": "private, max-age=604800, immutable"}
"""For addresses that hold the version of the file."""
SHORTLY = {"Cache-Control": "private, max-age=60"}


class SlideEndpoints:
    """Answers requests for the cohort and its slides. The methods are not async, so starlette runs them in threads."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer

    def about(self, request: Request) -> Response:
        """Contents of the run: labels, sites, folds, trainings, encoders, classifications."""
        return JSONResponse(self._viewer.about())

    def cohort(self, request: Request) -> Response:
        """One page of the cohort's rows."""
        page = (number(request, "offset", 0), number(request, "limit", 100))
        return JSONResponse(self._viewer.rows.page(_rows_asked(request), *page))

    def around(self, request: Request) -> Response:
        """The slides before and after one in the list."""
        return JSONResponse(self._viewer.rows.around(_rows_asked(request), request.query_params.get("slide", "")))

    def facts(self, request: Request) -> Response:
        """Size, levels, resolution, layers and predictions of a slide, by the first training unless one is named."""
        slide_id = request.path_params["slide"]
        training = request.query_params.get("training") or next(iter(self._viewer.trainings()), "")
        return JSONResponse({
            **self._viewer.library.facts(slide_id),
            "layers": self._viewer.layers.listed(slide_id),
            "row": self._viewer.rows.one(slide_id, training),
            "export_command": self._viewer.export_command(slide_id),
        })  # fmt: skip

    def thumbnail(self, request: Request) -> Response:
        """The whole slide, small."""
        found = self._viewer.library.thumbnail(request.path_params["slide"], number(request, "px", 256))
        return _picture(found, request)

    def region(self, request: Request) -> Response:
        """A box of level 0 as one picture."""
        x, y, side = (number(request, name, 0) for name in ("x", "y", "side"))
        found = self._viewer.library.region(
            request.path_params["slide"], Box(x, y, side, side), number(request, "px", 256)
        )
        return _picture(found, request)

    def layer(self, request: Request) -> Response:
        """One layer over a slide."""
        return JSONResponse(self._viewer.layers.read(request.path_params["slide"], request.query_params.get("key", "")))

    def associated(self, request: Request) -> Response:
        """Names of the label and macro images; the images themselves are sent one by one on request."""
        return JSONResponse(self._viewer.library.associated(request.path_params["slide"]))

    def associated_image(self, request: Request) -> Response:
        """One associated image."""
        place = request.path_params
        return _picture(self._viewer.library.associated_image(place["slide"], place["name"]))

    def similar(self, request: Request) -> Response:
        """The patches nearest to a patch or, without `row`, the nearest slides."""
        slide_id, words = request.path_params["slide"], request.query_params
        encoder, count = words.get("encoder", ""), number(request, "count", 24)
        if "row" not in words:
            return JSONResponse(self._viewer.similar_slides(slide_id, encoder, count))
        row, others = number(request, "row", 0), words.get("others") == "1"
        return JSONResponse(self._viewer.similar_patches(slide_id, row, encoder, count, others=others))


def _rows_asked(request: Request) -> RowQuery:
    words = request.query_params
    return RowQuery(
        sort=words.get("sort", "order"),
        down=words.get("down") == "1",
        **{name: words.get(name, "") for name in ("training", "label", "site", "fold", "state", "text")},
    )


def number(request: Request, name: str, default: int) -> int:
    """An integer from the query. Raises UsageError for anything else."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = int(text) if len(text) < 12 else None
    except ValueError:
        value = None
    if value is None:
        raise UsageError(f"{name} must be a whole number, got {text[:40]!r}")
    return value


def _picture(tile: Tile, request: Request | None = None) -> Response:
    """A picture that the browser may keep: as long as its address is right, and not at all without a request."""
    kept = {} if request is None else FOREVER if request.query_params.get("v") else SHORTLY
    return Response(tile.data, media_type=tile.media, headers=dict(kept))


def explained(error: Any) -> JSONResponse:
    """One of our errors as JSON: what is wrong and what to do."""
    status = 404 if isinstance(error, UsageError) and error.what.startswith("no ") else 400
    return JSONResponse({"error": error.what, "todo": error.todo}, status)
