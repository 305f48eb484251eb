"""Pages that are made from the code: commands, values of params.yaml, decisions, the stage graph."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

_HEADER = {"| key | values | meaning |": "| key | values | default | meaning |", "|---|---|---|": "|---|---|---|---|"}
_ROW = re.compile(r"^\| (`[^|]*`) \| ([^|]*) \| (.*) \|$")


def command_line(group: click.Group, name: str) -> str:
    """All commands with their options and examples, as Markdown."""
    top = click.Context(group, info_name=name, max_content_width=100)
    lines = ["# Command line", "", _help(group), ""]
    for command in sorted(group.commands):
        lines += _command(group.commands[command], click.Context(group.commands[command], top, info_name=command))
    return "\n".join(lines)


def _command(command: click.Command, ctx: click.Context) -> Iterator[str]:
    usage = " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    yield from (f"## {ctx.info_name}", "", _help(command), "", "```text", usage, "```", "")
    records = [option.get_help_record(ctx) for option in command.params if isinstance(option, click.Option)]
    if rows := [f"| `{record[0]}` | {record[1].replace('  [', ' [')} |" for record in records if record]:
        yield from ("| option | meaning |", "|---|---|", *rows, "")
    if command.epilog:
        examples = [line.strip() for line in command.epilog.splitlines()[2:]]
        yield from ("```bash", *examples, "```", "")


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").replace("\b\n", "")


def with_defaults(text: str, defaults: Mapping[str, Any]) -> str:
    """docs/parameters.md with a column more: what `defaults` in params.yaml say.

    Args:
        text: The Markdown.
        defaults: The section, nested.
    """
    flat = dict(_flat(defaults))
    parts = text.split("\n## ")
    for number, part in enumerate(parts):
        if part.startswith("A data set\n"):
            parts[number] = "\n".join(_with_default(line, flat) for line in part.split("\n"))
    return "\n## ".join(parts)


def _with_default(line: str, flat: Mapping[str, Any]) -> str:
    if line in _HEADER:
        return _HEADER[line]
    row = _ROW.match(line)
    if row is None:
        return line
    keys = row[1].replace("`", "").split(", ")
    told = ", ".join(_told(flat[key]) for key in keys if key in flat)
    return f"| {row[1]} | {row[2]} | {told} | {row[3]} |"


def _told(value: Any) -> str:
    """A value as it is written in YAML, on one line."""
    written = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n")
    return f"`{written.strip()}`"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and "kind" not in value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def decisions(folder: Path) -> str:
    """A list of the architecture decisions."""
    lines = [f"- [{title_of(path)}]({path.name})" for path in sorted(folder.glob("*.md"))]
    return "\n".join(["# Decisions", "", "What was decided about the architecture, when, and why.", "", *lines, ""])


def title_of(page: Path) -> str:
    """The heading of a Markdown file."""
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
