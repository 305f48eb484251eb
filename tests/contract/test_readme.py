"""What the README and the docs tell people to type exists, and what they point to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from flows.cli import cli
from tests.conftest import ROOT

_PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^```(?:bash|sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\((?!https?:|#)([^)#\s]+)[^)]*\)")
_IDS = [str(path.relative_to(ROOT)) for path in _PAGES]


def _commands(page: Path, *, only_blocks: bool = False) -> list[list[str]]:
    """Lines of shell blocks, and inline code that starts with make or boundaryflow, in words."""
    text = page.read_text()
    lines = [line for block in _BLOCK.findall(text) for line in block.splitlines()]
    if not only_blocks:
        lines += re.findall(r"(?<!`)`((?:make|boundaryflow) [^`\n]+)`", text)
    words = [shlex.split(line, comments=True) for line in lines]
    return [[word for word in line if not re.fullmatch(r"[A-Z_]+=\S*", word)] for line in words if line]


@pytest.mark.parametrize("page", _PAGES, ids=_IDS)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {words[1] for words in _commands(page) if words[:1] == ["make"]}
    assert asked - targets == set()


@pytest.mark.parametrize("page", _PAGES, ids=_IDS)
def test_boundaryflow_commands_are_accepted_by_the_parser(page: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.touch()
    for words in _commands(page):
        if Path(words[0]).name != "boundaryflow" or "..." in " ".join(words):
            continue
        name, *arguments = words[1:]
        assert name in cli.commands, " ".join(words)
        if not arguments and words not in _commands(page, only_blocks=True):
            continue  # the text speaks of the command
        arguments = [str(photo) if word.endswith((".png", ".jpg")) else word for word in arguments]
        arguments = [str(tmp_path) if word.endswith("/") else word for word in arguments]
        try:
            cli.commands[name].make_context(name, arguments)
        except click.ClickException as error:
            pytest.fail(f"{' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("page", _PAGES, ids=_IDS)
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", _PAGES, ids=_IDS)
def test_yaml_examples_are_yaml(page: Path) -> None:
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        yaml.safe_load(block)


def test_readme_has_the_two_commands_and_a_picture() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text
    assert re.search(r"!\[[^\]]+\]\(docs/images/edits\.png\)", text.split("\n## ")[0])


def test_docs_name_every_environment_variable() -> None:
    """A knob that is read somewhere is explained in docs/parameters.md."""
    known = set(re.findall(r"BOUNDARYFLOW_[A-Z_]+", (ROOT / "docs/parameters.md").read_text()))
    folders = ("boundaryflow", "stages", "flows")
    read = {
        name
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"[\"'](BOUNDARYFLOW_[A-Z_]+)[\"']", path.read_text())
    }
    assert read - known == set()


def test_docs_name_every_section_of_the_params() -> None:
    text = (ROOT / "docs/parameters.md").read_text()
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for dataset in (params["defaults"], *params["data"].values()):
        for section, content in dataset.items():
            keys = [section] if not isinstance(content, dict) else [f"{section}.{key}" for key in content]
            assert [key for key in keys if f"`{key}`" not in text] == []
