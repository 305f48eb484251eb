"""What MkDocs calls while it builds the site (mkdocs.yml): pages from the code, from notebooks, from other folders."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

import boundaryflow
from flows.cli import cli
from website import links, reference, stage_graph

ROOT = Path(__file__).resolve().parents[1]
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FROM_ELSEWHERE = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\"' >]*")
_PAGES = (links.HOME, "CHANGELOG.md", "SECURITY.md")
_PYTHON = "# Python reference\n\nWith examples: [the Python API](../api.md).\n"
_HIDDEN = "---\nsearch:\n  exclude: true\n---\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every decision into the navigation."""
    decisions = ["adr/index.md", *(f"adr/{path.name}" for path in sorted((ROOT / "docs/adr").glob("*.md")))]
    config.nav = [{"Decisions": decisions} if entry == "Decisions" else entry for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for name in ("style.css", "iframe-worker.js"):
        files.append(File.generated(config, f"assets/{name}", abs_src_path=str(ROOT / "website" / name)))
    made = {
        "adr/index.md": reference.decisions(ROOT / "docs/adr"),
        "reference/command_line.md": reference.command_line(cli, "boundaryflow"),
        "reference/python.md": _PYTHON + "".join(f"\n::: boundaryflow.{name}\n" for name in boundaryflow.__all__),
    }
    for notebook in sorted((ROOT / "examples/notebooks").glob("*.ipynb")):
        made[links.place(notebook.relative_to(ROOT).as_posix())] = _notebook(notebook)
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    _add_linked(files, config)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Complete what a git host shows otherwise: links out of docs/, the defaults of parameters, the stage graph."""
    del config, files
    source = page.file.src_uri
    if not page.file.generated_by:
        markdown = links.rewritten(markdown, f"docs/{source}")
    if source == "parameters.md":
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        markdown = reference.with_defaults(markdown, params["defaults"])
    return _MERMAID.sub(lambda found: stage_graph.as_svg(*stage_graph.read_edges(found[1])), markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would load something from elsewhere.

    Raises:
        PluginError: It does.
    """
    del config
    if found := _FROM_ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri}: {found[0]} is loaded from elsewhere; put it into the repository")
    return output


def _add_linked(files: Files, config: MkDocsConfig) -> None:
    """Add what pages link to outside of docs/, and what those link to."""
    left: list[str] = list(_PAGES)
    for page in files.documentation_pages():
        if not page.generated_by:
            left += links.targets(page.content_string, f"docs/{page.src_uri}")
    known: set[str] = set()
    while left:
        path = left.pop()
        if path in known or path.startswith("docs/") or not (ROOT / path).is_file():
            continue
        known.add(path)
        file, linked = _of_repository(path, config)
        files.append(file)
        left += linked


def _of_repository(path: str, config: MkDocsConfig) -> tuple[File, list[str]]:
    """A file of the repository as a source of the site, and what it links to."""
    place, suffix = links.place(path), PurePosixPath(path).suffix
    inclusion = InclusionLevel.INCLUDED if path in _PAGES else InclusionLevel.NOT_IN_NAV
    if not place.endswith(".md"):
        return File.generated(config, place, abs_src_path=str(ROOT / path)), []
    text = (ROOT / path).read_text(encoding="utf-8")
    if suffix == ".md":
        linked = list(links.targets(text, path))
        return File.generated(config, place, content=links.rewritten(text, path), inclusion=inclusion), linked
    shown = f"{_HIDDEN}# {path}\n\n````{suffix.removeprefix('.')}\n{text}````\n"
    return File.generated(config, place, content=shown, inclusion=inclusion), []


def _notebook(path: Path) -> str:
    """A notebook as Markdown."""
    parts: list[str] = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return links.rewritten("\n\n".join(parts), path.relative_to(ROOT).as_posix())
