"""Where a command may write: never among the raw images, never into what stages keep, never into its own input."""

from __future__ import annotations

import os
from pathlib import Path

from boundaryflow.errors import ManifestError
from boundaryflow.files import is_remote
from boundaryflow.text import visible

_OURS = ("data", ".git", ".dvc", ".prefect")


def check_output(address: str | Path, option: str, root: Path = Path(), *, may_be: str = "") -> None:
    """Refuse a folder to write to that is no folder, or is kept for something else.

    Args:
        address: The folder, which need not exist, or the address of a remote one.
        option: What named it, for the message: `--out`, `bulk_edit.glasses.outbox`.
        root: The checkout.
        may_be: The one folder of `data/` that it may lie in.

    Raises:
        ManifestError: It is one.
    """
    if str(address).startswith(("file:", "local:")):
        raise ManifestError(f"{option} {visible(str(address))}: is a folder on this machine; give it as a plain path")
    if is_remote(str(address)) or (may_be and _resolved(address).is_relative_to(_resolved(root / may_be))):
        return
    path = _resolved(address)
    shown = visible(os.fspath(address))
    for name in _OURS:
        if path.is_relative_to(_resolved(root / name)):
            raise ManifestError(
                f"{option} {shown}: lies in {name}/ of the checkout, which holds raw images and what stages keep; "
                "choose a folder outside of it, such as out/NAME"
            )
    for link in sorted(entry for depth in ("*", "*/*") for entry in (root / "data").glob(depth)):  # may lead elsewhere
        if link.is_symlink() and path.is_relative_to(_resolved(link)):
            raise ManifestError(
                f"{option} {shown}: lies in {visible(str(link))}, which is a link to there; choose another folder"
            )
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        raise ManifestError(f"{option} {shown}: {visible(str(there))} is not a folder; choose another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ManifestError(f"{option} {shown}: {visible(str(there))} cannot be written to; change its permissions")


def meet(one: str, other: str, root: Path = Path()) -> bool:
    """Whether two folders are one, or one holds the other; links are followed."""
    if is_remote(one) != is_remote(other):
        return False
    if is_remote(one):
        first, second = (address.rstrip("/") + "/" for address in (one, other))
        return first.startswith(second) or second.startswith(first)
    first_path, second_path = _resolved(root / one), _resolved(root / other)
    return first_path.is_relative_to(second_path) or second_path.is_relative_to(first_path)


def check_apart(inbox: str, outbox: str, job: str) -> None:
    """Refuse an inbox and an outbox of which one is, or holds, the other: edits would be edited again.

    Raises:
        ManifestError: It is so.
    """
    if meet(inbox, outbox):
        raise ManifestError(
            f"{job}: inbox {visible(inbox)} and outbox {visible(outbox)} lie in one another, so that edits would be "
            "edited again; name folders apart from each other"
        )


def _resolved(path: str | Path) -> Path:
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:
        raise ManifestError(f"{visible(os.fspath(path))}: {error}; remove the link") from None
