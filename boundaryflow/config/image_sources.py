"""Where images come from: a class for each kind, with the rules that it has for the rest of the data set.

Another kind is a class here and in `ListedSource`, how it is listed (`sources/listing.py`), and how it is read
(`sources/datasets.py`); `tests/contract/test_kinds.py` says what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import not_
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from boundaryflow.config.base import RawPath, Section, Share
from boundaryflow.config.wording import nearest
from boundaryflow.files import about_user
from boundaryflow.store.catalog.raw import RAW
from boundaryflow.text import masked

if TYPE_CHECKING:
    from boundaryflow.config.ingest import IngestParams


class ImageKind(Section):
    """What a kind of image source may say differently.

    Attributes:
        is_drawn: Its images are drawn: they lie in no folder, and the exact answer to an edit of one is known.
    """

    is_drawn: ClassVar[bool] = False

    def place(self, dataset: str) -> str:
        """The folder or address that the images of a data set lie in, without secrets."""
        return RAW.folder(dataset).as_posix()

    def disagreements(self, ingest: IngestParams) -> Iterator[str]:
        """Lines `key: what is wrong`, the key within the data set."""
        yield from ()


class AvatarSource(ImageKind):
    """The built-in renderer."""

    is_drawn = True
    kind: Literal["avatars"]
    num_images: int = Field(ge=8)
    seed: int = Field(ge=0)
    rates: dict[str, Share]
    correlations: dict[str, Annotated[float, Field(ge=-1, le=1)]]

    def disagreements(self, ingest: IngestParams) -> Iterator[str]:
        """See `ImageKind`."""
        if ingest.channels != 3:
            yield f"ingest.channels: is {ingest.channels}, must be 3; avatars are RGB"
        if ingest.crop is not None:
            yield "ingest.crop: must be null; avatars are drawn in the size that is asked for"
        if ingest.max_images is not None:
            yield f"ingest.max_images: is {ingest.max_images}, must be null; ingest.source.num_images says how many"
        yield from self._about_rates()
        wrong = list(self._about_names())
        yield from wrong or self._about_distribution()

    def _about_rates(self) -> Iterator[str]:
        from boundaryflow.avatars import ATTRIBUTES

        for name in self.rates:
            if name not in ATTRIBUTES:
                yield f"ingest.source.rates: the renderer has no attribute {name!r}{nearest(name, ATTRIBUTES)}"

    def _about_names(self) -> Iterator[str]:
        from boundaryflow.avatars import ATTRIBUTES, FACTORS

        names, seen = [*ATTRIBUTES, *FACTORS], set[frozenset[str]]()
        for pair in self.correlations:
            both = pair.split("~")
            unknown = next((name for name in both if name not in names), None)
            if len(both) != 2 or both[0] == both[1]:
                line = f"{pair!r} must be two names joined by ~, such as hat~beard"
            elif unknown is not None:
                line = f"{pair!r}: the renderer has nothing named {unknown!r}{nearest(unknown, names)}"
            elif frozenset(both) in seen:
                line = f"{pair!r} is stated twice; keep one"
            else:
                seen.add(frozenset(both))
                continue
            yield f"ingest.source.correlations: {line}"

    def _about_distribution(self) -> Iterator[str]:
        if not self.correlations:
            return
        import numpy as np

        from boundaryflow.avatars import sample_avatars

        pairs = {(a, b): value for (a, _, b), value in ((p.partition("~"), v) for p, v in self.correlations.items())}
        try:
            sample_avatars(1, np.random.default_rng(0), correlations=pairs)
        except ValueError:
            yield (
                "ingest.source.correlations: contradict one another, no distribution has them all; bring some nearer "
                "to 0"
            )


class FolderSource(ImageKind):
    """The user's own images, in data/raw/NAME: image files, archives, LMDBs; a link to a folder elsewhere will do.

    Attributes:
        include: Patterns of names, as `boundaryflow.sources.raw.Wanted` reads them: only pictures that fit one. None
            is all, also where the key is left out, as it is in what was written before there was one.
        exclude: The same of pictures that are left out.
    """

    kind: Literal["folder"]
    include: list[str] = []
    exclude: list[str] = []


class ParquetSource(ImageKind):
    """Pictures within the Parquet files of data/raw/NAME, as Hugging Face has them.

    Attributes:
        path: The file, or a pattern for several.
        image_column: The column of pictures: binary, or structs with `bytes`. None: the only one of them.
        include: As for `FolderSource`.
        exclude: As for `FolderSource`.
    """

    kind: Literal["parquet"]
    path: RawPath
    image_column: str | None
    include: list[str] = []
    exclude: list[str] = []


class RemoteSource(ImageKind):
    """Images in a remote folder; labels and a file of splits lie in data/raw/NAME.

    Attributes:
        url: Its address.
        include: As for `FolderSource`.
        exclude: As for `FolderSource`.
    """

    kind: Literal["remote"]
    url: str
    include: list[str] = Field(default=[], exclude_if=not_)  # younger than the other keys: what lacks it is dumped so
    exclude: list[str] = Field(default=[], exclude_if=not_)

    def place(self, dataset: str) -> str:
        """See `ImageKind`."""
        return masked(self.url)

    def disagreements(self, ingest: IngestParams) -> Iterator[str]:
        """See `ImageKind`."""
        if fault := about_user(self.url):
            yield f"ingest.source.url: {fault}"


ListedSource = FolderSource | ParquetSource | RemoteSource
"""Images that lie somewhere, to be listed and decoded."""
ImageSource = Annotated[AvatarSource | ListedSource, Field(discriminator="kind")]
