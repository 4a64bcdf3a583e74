"""How Sphinx builds the site: `make docs`. Nothing in it is fetched from another machine."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from docs.generate import commands, errors, log_lines, metrics, settings  # noqa: E402
from peer import __version__  # noqa: E402

# Made anew at each build and never committed: so they cannot be out of date, and a changed message changes one file.
GENERATED = {"errors": errors, "log-lines": log_lines, "config": settings, "metrics": metrics, "commands": commands}

project = "Shoal"
version = release = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
nitpicky = True

html_theme = "furo"
html_title = f"Shoal {__version__}"
html_show_sphinx = html_copy_source = html_show_sourcelink = False
html_extra_path = ["../llms.txt"]
html_theme_options = {"top_of_page_buttons": []}
pygments_style, pygments_dark_style = "friendly", "monokai"


def write_pages(app: Sphinx) -> None:
    """Write the pages that follow from the source; one that has not changed keeps its time, and is not built again."""
    folder = HERE / "generated"
    folder.mkdir(exist_ok=True)
    for name, maker in GENERATED.items():
        path, text = folder / f"{name}.md", maker.page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def leave_out_missing(app: Sphinx, page: str, source: list[str]) -> None:
    """Take pages that are not there out of the table of contents: what they are about may come later."""
    if page == "index":
        lines = source[0].splitlines()
        is_missing = [line.startswith("guide/") and not (HERE / f"{line}.md").exists() for line in lines]
        source[0] = "\n".join(line for line, missing in zip(lines, is_missing, strict=True) if not missing)


def setup(app: Sphinx) -> None:
    """Make the pages before Sphinx looks for them."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", leave_out_missing)
