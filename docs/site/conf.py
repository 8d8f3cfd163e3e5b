"""How `make docs` builds the site: the pages as they are, and the API from the docstrings, which are read, not run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from docstrings import to_rst  # noqa: E402

project = "wsi-pipeline"
author = copyright = "the authors of wsi-pipeline, Apache-2.0"
root_doc = "README"
WITH_API = os.environ.get("DOCS") != "pages"
extensions = ["myst_parser", "sphinx_copybutton", *(["autoapi.extension"] if WITH_API else [])]
PAGES = ["*.md", "docs/*.md", "docs/adr/*.md", "manifests/*.md", "workflows/*.md", "benchmarks/*.md"]
PAGES += ["findings/*.md", "pathotune/builtin/*.md"]
include_patterns = [*PAGES, *(["api/**"] if WITH_API else [])]
pygments_style = "default"
smartquotes = False  # `--model` stays two hyphens
add_module_names = False

myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]

autoapi_dirs = ["wsi_pipeline", "pathotune"]
autoapi_root = "api"
# What parses the command line and draws the demo is no API.
autoapi_ignore = ["*/wsi_pipeline/commands/*", "*/wsi_pipeline/cli.py", "*/wsi_pipeline/demo/*"]
autoapi_options = ["members", "undoc-members"]
autoapi_add_toctree_entry = False
autoapi_python_class_content = "class"
autoapi_member_order = "bysource"
# astroid cannot follow every import of a constant; what the pages show does not depend on it.
suppress_warnings = ["autoapi.python_import_resolution"]

html_theme = "furo"
html_title = "wsi-pipeline"
html_static_path = [str(HERE / "static")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

API = ["api/wsi_pipeline/index", "api/pathotune/index"] if WITH_API else []
BUILT_IN = ["pathotune/builtin/ADAPTER", "pathotune/builtin/VIT_MINI"]
GROUPS = {
    "Use": "slides segmentation stain encoders slide_encoders robustness pathotune labels mil validation exchange "
    "export viewer python cluster",
    "Look up": "format results performance reliability versions",
    "Change": "architecture",
}
BESIDE = {
    "Use": ["manifests/README", "workflows/README"],
    "Look up": [*API, "benchmarks/README", *BUILT_IN, "CHANGELOG"],
    "Change": ["CONTRIBUTING", "docs/adr/README", "SECURITY"],
}


def contents() -> str:
    """The side bar: every page stands in it, one that no group names under `More`."""
    found = {str(path.relative_to(ROOT).with_suffix("")) for pattern in PAGES for path in ROOT.glob(pattern)}
    left = found - {root_doc}
    text = ""
    for title, names in GROUPS.items():
        pages = [f"docs/{name}" for name in names.split()] + BESIDE[title]
        pages = [page for page in pages if page in found or page in API]
        left -= set(pages)
        text += _toctree(title, pages)
    left -= {page for page in left if page.startswith("docs/adr/")}
    return text + (_toctree("More", sorted(left)) if left else "")


def _toctree(title: str, pages: list[str]) -> str:
    entries = "\n".join(pages)
    return f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{entries}\n```\n"


def add_contents(app: object, page: str, source: list[str]) -> None:
    """Give the README the side bar, the list of decisions its pages, and a module's page a title that fits the bar."""
    if page == root_doc:
        source[0] += contents()
    elif page == "docs/adr/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n0*\n```\n"
    elif page.startswith("api/"):
        full, _, rest = source[0].lstrip().partition("\n")
        short = full.rpartition(".")[2]
        source[0] = f"{short}\n{'=' * len(short)}\n\n``{full}``\n{rest.lstrip('=')}"


def convert(app: object, kind: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Give autoapi a docstring as reStructuredText."""
    lines[:] = to_rst(lines)


def skip(app: object, kind: str, name: str, thing: object, skipped: bool, options: object) -> bool:
    """Leave out fields without a text of their own: the table in the docstring of their class says what they are."""
    return skipped or (kind == "attribute" and not thing.docstring)


def front_page(app: object, error: Exception | None) -> None:
    """Make the README the page that a folder opens with."""
    if error is None and app.builder.format == "html":
        out = Path(app.outdir)
        (out / "index.html").write_text((out / f"{root_doc}.html").read_text(encoding="utf-8"), encoding="utf-8")


def stay_in_this_project() -> None:
    """Let astroid parse these packages and the standard library only.

    It would follow every name into torch, timm and transformers, which takes minutes and adds nothing to a page.
    """
    from astroid.exceptions import AstroidImportError
    from astroid.manager import AstroidManager

    parse = AstroidManager.ast_from_module_name
    ours = {*autoapi_dirs, *sys.stdlib_module_names}

    def ast_from_module_name(self: AstroidManager, modname: str, *rest: object, **options: object) -> object:
        """As astroid's; raises AstroidImportError for a module of another package."""
        if modname.partition(".")[0] not in ours:
            raise AstroidImportError("not a module of this project", modname=modname)
        return parse(self, modname, *rest, **options)

    AstroidManager.ast_from_module_name = ast_from_module_name


def setup(app: object) -> None:
    """Connect the above."""
    app.connect("source-read", add_contents)
    if WITH_API:
        stay_in_this_project()
        app.connect("autodoc-process-docstring", convert)
        app.connect("autoapi-skip-member", skip)
    app.connect("build-finished", front_page)
