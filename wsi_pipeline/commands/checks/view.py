"""`view`: show the run in a browser, or export a folder that shows it without a server."""

from __future__ import annotations

import contextlib
from pathlib import Path

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.config.slide_options import ViewOptions
from wsi_pipeline.errors import UsageError
from wsi_pipeline.wording import counted

_MISSING = "the viewer needs packages that are not installed"


def view(request: Request) -> int:
    """Serve the viewer until Ctrl-C, or with --export write a folder and exit."""
    options = request.get(ViewOptions)
    run = RunDir.existing(request.run_dir.root)
    try:
        from wsi_pipeline.viewer.library import Library
        from wsi_pipeline.viewer.web.access import is_loopback
        from wsi_pipeline.viewer.web.serve import serve
        from wsi_pipeline.viewer.web.viewer import Viewer
    except ModuleNotFoundError as error:
        raise UsageError(f"{_MISSING}: {error.name}", todo="Install them: pip install 'wsi-pipeline[view]'") from None
    viewer = Viewer(Library.of_run(run))
    if options.next_to_mark is not None:
        return _next_to_mark(request, viewer, options.next_to_mark, options.classified_by)
    if options.export is not None:
        return _export(request, viewer, Path(options.export))
    console = request.console
    console.say(f"{shown(run.root)}/  {counted(len(viewer.library.records), 'slide')}; marks are kept in annotations/")

    def tell(url: str) -> None:
        console.say(f"open {url}")
        console.say("the address contains a token: anyone who has it can see and mark the slides. Stop with Ctrl-C")

    if not is_loopback(options.host):
        console.note("other machines can reach this address, and nothing is encrypted")
    with contextlib.suppress(KeyboardInterrupt):  # the usual end; whether uvicorn raises it depends on the moment
        serve(viewer, options.host, options.port, browser=options.browser, tell=tell)
    console.say("stopped; marks and jobs are kept")
    return EXIT_DONE


def _next_to_mark(request: Request, viewer: object, count: int, model: str) -> int:
    from wsi_pipeline.cohort.run_dir import slug
    from wsi_pipeline.viewer.next_to_mark import next_to_mark
    from wsi_pipeline.viewer.web.viewer import Viewer

    assert isinstance(viewer, Viewer)
    found = next_to_mark(viewer.library, viewer.marks, slug(model), count)
    if not found.patches:
        request.console.say("nothing is left to mark: every classified patch has a label")
    rows = [[one["id"], str(one["x"]), str(one["y"]), *one["between"], f"{one['doubt']:.2f}"] for one in found.patches]
    heads = ("slide", "x", "y", "most likely", "then", "uncertainty")
    request.console.table(
        heads, [[*row[:4], *row[4:-1], *[""] * (6 - len(row)), row[-1]] for row in rows], right=(1, 2)
    )
    if found.note:
        request.console.note(found.note)
    return EXIT_DONE


def _export(request: Request, viewer: object, folder: Path) -> int:
    from wsi_pipeline.viewer.folder_export import export_folder
    from wsi_pipeline.viewer.web.viewer import Viewer

    assert isinstance(viewer, Viewer)
    options, library = request.get(ViewOptions), viewer.library
    chosen = [record.slide_id for record in request.select(library.cohort)]
    with request.console.progress("export", len(chosen), "slides") as step:
        made = export_folder(viewer, folder, chosen, options.export_mpp, step)
    for slide_id, reason in made.failed.items():
        request.console.note(f"{slide_id} is left out: {reason}")
    request.console.say(
        f"{counted(made.slides, 'slide')} in {shown(folder)}/ ({made.bytes / 1e6:.1f} MB); open {shown(made.page)}"
    )
    return EXIT_DONE if made.slides else EXIT_SOME_FAILED
