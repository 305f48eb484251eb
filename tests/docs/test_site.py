"""The pages of the site: all documents are in its navigation, links lead there, what is made from code is right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from mkdocs.exceptions import PluginError

from flows.cli import cli
from tests.conftest import ROOT
from website import hooks, links, reference, stage_graph


def _pages(nav: list[Any]) -> list[str]:
    """Paths of a navigation, at any depth."""
    found: list[str] = []
    for entry in nav:
        below = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found += _pages(below) if isinstance(below, list) else [below]
    return found


def test_navigation_lists_every_document_notebook_and_decision_once() -> None:
    pages = _pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert "Decisions" in pages  # all of docs/adr/, put there by the hook
    written = [*(ROOT / "docs").glob("*.md"), *(ROOT / "examples/notebooks").glob("*.ipynb")]
    wanted = {links.place(path.relative_to(ROOT).as_posix()) for path in written}
    assert wanted - set(pages) == set()
    assert len(pages) == len(set(pages))
    listed = reference.decisions(ROOT / "docs/adr")
    assert [path.name for path in (ROOT / "docs/adr").glob("*.md") if f"]({path.name})" not in listed] == []


@pytest.mark.parametrize(
    ("path", "link", "moved"),
    [
        ("docs/quality.md", "../benches/results/quality.json", "repository/benches/results/quality.json"),
        ("docs/quality.md", "method.md#guided", "method.md#guided"),
        ("docs/adr/0001-x.md", "../method.md", "../method.md"),
        ("docs/datasets.md", "../params.yaml", "repository/params.yaml.md"),
        ("docs/datasets.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("docs/datasets.md", "#labels", "#labels"),
        ("README.md", "docs/adr", "adr/index.md"),
        ("README.md", "docs/images/edits.png", "images/edits.png"),
        ("SECURITY.md", "docs/models.md", "../models.md"),
        ("training/avatars/README.md", "../../docs/training.md", "../../../training.md"),
        ("docs/api.md", "../examples/notebooks/first_edits.ipynb", "notebooks/first_edits.md"),
    ],
)
def test_link_leads_to_its_place_in_the_site(path: str, link: str, moved: str) -> None:
    assert links.rewritten(f"See [it]({link}), and `[code]({link})`.", path).startswith(f"See [it]({moved})")


def test_link_in_code_stays() -> None:
    assert links.rewritten("`[a](../b.md)`", "docs/x.md") == "`[a](../b.md)`"
    assert list(links.targets("[a](../b.md#c) [d](e.md)", "docs/x.md")) == ["b.md", "docs/e.md"]


def test_command_line_has_every_command_with_its_options() -> None:
    text = reference.command_line(cli, "boundaryflow")
    for name, command in cli.commands.items():
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"boundaryflow {name}" in section
        options = [option for option in command.params if option.param_type_name == "option"]
        assert [option.opts for option in options if option.opts[-1] not in section] == []


def test_parameters_show_the_defaults_of_params_yaml() -> None:
    defaults = yaml.safe_load((ROOT / "params.yaml").read_text())["defaults"]
    text = reference.with_defaults((ROOT / "docs/parameters.md").read_text(), defaults)
    cells = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    rows = {row[0]: row[2] for row in cells if len(row) > 2}
    assert rows["| `edit.guided.certainty`"] == f"`{defaults['edit']['guided']['certainty']}`"
    assert rows["| `mixing.fixed_t`"] == "`null`"
    assert rows["| `edit.strengths`"] == "`[0.0, 0.5, 1.0, 1.5]`"
    assert rows["| `model`"] == ""
    assert rows["| `bulk_edit.NAME.inbox`"].startswith("where pictures arrive")  # jobs have no defaults


def test_stage_graph_is_that_of_dvc_yaml() -> None:
    mermaid = (ROOT / "docs/architecture.md").read_text().partition("```mermaid\n")[2].partition("```")[0]
    edges, names = stage_graph.read_edges(mermaid)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert {end for _, end, _ in edges} | {"params"} == set(stages)
    assert names == {"raw": "data/raw"}
    drawn = stage_graph.as_svg(edges, names)
    assert drawn.count("<circle") == len(edges)
    assert drawn.count("<rect") == len(stages) + 1


def test_stage_graph_line_that_is_no_edge_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stage graph: 'a ~~~ b' is no edge"):
        stage_graph.read_edges("flowchart LR\n  a ~~~ b\n")


@pytest.mark.parametrize("tag", ['<script src="https://example.org/a.js">', "<link rel=x href=//example.org/a.css>"])
def test_page_that_loads_something_from_elsewhere_is_refused(tag: str) -> None:
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri="a.md"))
    config: Any = None
    own = '<script src="assets/a.js"></script><a href="https://example.org">a link</a>'
    assert hooks.on_post_page(own, page, config) == own
    with pytest.raises(PluginError, match=r"a\.md: .*example\.org/a.* is loaded from elsewhere"):
        hooks.on_post_page(own + tag, page, config)
