"""The web application: which endpoint answers which address."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.viewer.web.access import Access
from wsi_pipeline.viewer.web.slide_endpoints import SlideEndpoints, explained
from wsi_pipeline.viewer.web.teach_endpoints import TeachEndpoints
from wsi_pipeline.viewer.web.tile_answers import TileAnswers
from wsi_pipeline.viewer.web.viewer import Viewer

_MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def make_app(viewer: Viewer, token: str, names: Iterable[str] = (), *, in_frames: bool = False) -> ASGIApp:
    """The viewer behind its token; see `Access` for `names` and `in_frames`."""
    return Access(TileAnswers(_routes(viewer), viewer.library), token, names, in_frames=in_frames)


def page_files() -> dict[str, bytes]:
    """The files of the page that are served: name below page/ -> content."""
    root = files("wsi_pipeline.viewer").joinpath("page")
    found = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    vendored = root.joinpath("openseadragon", "openseadragon.min.js")
    return {**found, "openseadragon.min.js": vendored.read_bytes()}


def _routes(viewer: Viewer) -> Starlette:
    about, teach, served = SlideEndpoints(viewer), TeachEndpoints(viewer), page_files()

    def page(request: Request) -> Response:
        """A file of the page, by name."""
        name = request.path_params.get("name", "index.html")
        if name not in served:
            return JSONResponse({"error": f"no file {name[:80]!r}"}, 404)
        suffix = "." + name.rpartition(".")[2]
        return Response(served[name], media_type=_MEDIA.get(suffix, "application/octet-stream"))

    slide = "/slides/{slide}"
    routes = [
        Route("/", page),
        Route("/page/{name}", page),
        Route("/about", about.about),
        Route("/cohort", about.cohort),
        Route("/cohort/around", about.around),
        Route(slide, about.facts),
        Route(slide + "/thumbnail", about.thumbnail),
        Route(slide + "/region", about.region),
        Route(slide + "/layer", about.layer),
        Route(slide + "/associated", about.associated),
        Route(slide + "/associated/{name}", about.associated_image),
        Route(slide + "/similar", about.similar),
        Route(slide + "/marks", teach.marks, methods=["GET"]),
        Route(slide + "/marks", teach.change, methods=["POST"]),
        Route("/teaching", teach.teaching),
        Route("/tune", teach.tune, methods=["POST"]),
        Route("/next-to-mark", teach.next_to_mark),
        Route("/jobs", teach.jobs),
        Route("/jobs/{number:int}", teach.job),
        Route("/jobs/{number:int}/stop", teach.stop, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={WsiPipelineError: _explained, Exception: _unexpected})


def _explained(request: Request, error: Exception) -> Response:
    return explained(error)


def _unexpected(request: Request, error: Exception) -> Response:
    """Handle a bug, ours or a library's: the page reports it, the server's log has the traceback."""
    return JSONResponse({"error": f"unexpected {type(error).__name__}", "todo": "See the terminal."}, 500)
