"""The viewer in a notebook: a frame in the cell, served from the notebook's own process."""

from __future__ import annotations

import contextlib
import html
from dataclasses import dataclass, field

from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.web.serve import Address, serve_in_thread
from wsi_pipeline.viewer.web.viewer import Viewer


@dataclass(eq=False)
class InlineViewer:
    """A running viewer, displayed if it is the last line of a cell. It runs until `close` or the end of the notebook.

    slide_id   the slide to show first; None: the cohort
    """

    library: Library
    slide_id: str | None = None
    height: int = 640
    _address: Address = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._server, self._address = serve_in_thread(Viewer(self.library))

    @property
    def url(self) -> str:
        """The address, to open the viewer in its own window."""
        place = f"#/slides/{html.escape(self.slide_id)}" if self.slide_id else ""
        return self._address.url + place

    def close(self) -> None:
        """Stop serving and close the slides."""
        self._server.should_exit = True
        self.library.close()

    def __repr__(self) -> str:
        return f"<InlineViewer {self.library.name}: {self.url}>"

    def _repr_html_(self) -> str:
        url = html.escape(self.url, quote=True)
        return (
            f'<iframe src="{url}" width="100%" height="{self.height}" style="border:1px solid #8884;border-radius:8px" '
            f'title="wsi-pipeline viewer" allow="clipboard-write"></iframe>'
            f'<p><a href="{url}" target="_blank" rel="noreferrer">Open in a window of its own</a></p>'
        )

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._server.should_exit = True
