"""From pixels to image files, each with the mark that says that it is synthetic, and how it was made.

The mark is IPTC's: the property DigitalSourceType in the XMP of the file (IPTC Photo Metadata Standard 2025.1), with a
term of the vocabulary http://cv.iptc.org/newscodes/digitalsourcetype/. The facts are text chunks of a PNG, and a
property of the same XMP in other formats.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.sax.saxutils import escape

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from torch import Tensor

from boundaryflow.errors import ManifestError

Format = Literal["png", "jpeg", "webp"]
SUFFIXES: Mapping[Format, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_LARGEST: Mapping[Format, int] = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}  # pixels of a side
JPEG_QUALITY = 95
_PNG = b"\x89PNG\r\n\x1a\n"
_MARK = b'boundaryflow:synthetic="true"'
_EDGE_BYTES = 2**20
"""Leading bytes of a JPEG file, and trailing ones of a WebP file, that contain the XMP of `encode`."""
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:boundaryflow="urn:boundaryflow:facts" boundaryflow:synthetic="true">
<Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>
<boundaryflow:facts>{facts}</boundaryflow:facts>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


@dataclass(frozen=True)
class Encoding:
    """A format of files.

    Attributes:
        format: The format.
        quality: 1 to 100 of a JPEG or WebP; None is `JPEG_QUALITY`, and a WebP without loss.
    """

    format: Format = "png"
    quality: int | None = None


def encode_png(pixels_u8: UInt8[Tensor, "c h w"], facts: Mapping[str, str] | None = None) -> bytes:
    """A PNG file of pixels [C,H,W] with 1 or 3 channels; see `encode`."""
    return encode(pixels_u8.cpu().numpy().transpose(1, 2, 0), facts or {})


def encode(
    pixels: NDArray[Any],
    facts: Mapping[str, str],
    encoding: Encoding = Encoding(),
    *,
    background: Sequence[int] = (255, 255, 255),
    profile: bytes | None = None,
    exif: bytes | None = None,
) -> bytes:
    """A picture file; equal arguments give equal bytes.

    Args:
        pixels: [H,W,C] uint8, or uint16, which only PNG keeps; grey, grey and alpha, RGB, or RGB and alpha.
        facts: Keyword to text. With `synthetic: true` the file gets IPTC's mark: composed with a trained algorithm's
            media where the facts name a `source` or an `edit`, else made by one.
        encoding: The format.
        background: RGB colour behind transparent pixels of a JPEG.
        profile: ICC profile that the pixels are in; None is sRGB.
        exif: EXIF of the file; None for none.

    Raises:
        ManifestError: The picture is larger than the format can be.
    """
    check_size(pixels.shape[1], pixels.shape[0], encoding)
    xmp = _xmp_of(facts) if facts.get("synthetic") == "true" else ""
    options: dict[str, Any] = {name: of for name, of in (("icc_profile", profile), ("exif", exif)) if of}
    if encoding.format == "png":
        return _png(pixels, facts, xmp, options)
    options |= {"xmp": xmp.encode()} if xmp else {}
    picture = _picture(pixels)
    if encoding.format == "jpeg":
        picture = _opaque(picture, background)
        return _saved(picture, "JPEG", quality=encoding.quality or JPEG_QUALITY, subsampling=0, **options)
    how = {"lossless": True} if encoding.quality is None else {"quality": encoding.quality}
    return _saved(picture, "WEBP", exact=True, **how, **options)


def check_size(width: int, height: int, encoding: Encoding) -> None:
    """Refuse a picture that is larger than the format can be.

    Raises:
        ManifestError: It is.
    """
    largest = _LARGEST[encoding.format]
    if max(height, width) > largest:
        raise ManifestError(
            f"{width} x {height} is larger than a {encoding.format.upper()} file can be ({largest:,} pixels a side); "
            "choose png"
        )


def is_synthetic(data: bytes) -> bool:
    """Whether a file is a picture that `encode` wrote with the fact `synthetic: true`."""
    if data.startswith(_PNG):
        return data.find(b"tEXtsynthetic\x00true", 0, data.find(b"IDAT")) > 0
    if data.startswith(b"\xff\xd8"):
        return _MARK in data[:_EDGE_BYTES]
    return data.startswith(b"RIFF") and _MARK in data[-_EDGE_BYTES:]


def _xmp_of(facts: Mapping[str, str]) -> str:
    is_edit = "source" in facts or "edit" in facts
    kind = "compositeWithTrainedAlgorithmicMedia" if is_edit else "trainedAlgorithmicMedia"
    return _XMP.format(source_type=_SOURCE_TYPE + kind, facts=escape(json.dumps(dict(facts), sort_keys=True)))


def _picture(pixels: NDArray[Any]) -> Image.Image:
    """The picture with 8 bits."""
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _opaque(picture: Image.Image, background: Sequence[int]) -> Image.Image:
    if picture.mode not in ("LA", "RGBA"):
        return picture
    over = picture.convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", over.size, (*background, 255)), over)
    return opaque.convert("L" if picture.mode == "LA" else "RGB")


def _png(pixels: NDArray[Any], facts: Mapping[str, str], xmp: str, options: Mapping[str, Any]) -> bytes:
    about = PngImagePlugin.PngInfo()
    for name, text in sorted(facts.items()):
        about.add_text(name, text)
    if xmp:
        about.add_itxt("XML:com.adobe.xmp", xmp)
    if pixels.dtype == np.uint8:
        return _saved(_picture(pixels), "PNG", pnginfo=about, **options)
    small = _saved(_picture(pixels[:1, :1]), "PNG", pnginfo=about, **options)
    return _with_16_bits(small, pixels)


def _with_16_bits(small: bytes, pixels: NDArray[np.uint16]) -> bytes:
    """A PNG with the chunks of another one, except that its pixels are these, of 16 bits, which Pillow cannot write.

    Every row is stored as its difference from the pixel before (filter type 1, PNG specification, section 9).
    """
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    step = 2 * channels
    rows = np.concatenate([rows[:, :step], rows[:, step:] - rows[:, :-step]], 1)
    content = zlib.compress(np.concatenate([np.ones((height, 1), np.uint8), rows], 1).tobytes(), 6)
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts, at = [_PNG], len(_PNG)
    while at < len(small):
        size, name = struct.unpack(">I4s", small[at : at + 8])
        body = small[at + 8 : at + 8 + size]
        at += 12 + size
        if name == b"IHDR":
            body = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
        elif name == b"IDAT":
            body = content
        parts.append(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)))
    return b"".join(parts)


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
