"""Picture files: formats, the mark of synthetic pictures, facts."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from boundaryflow.errors import ManifestError
from boundaryflow.sources.encoding import Encoding, encode, is_synthetic

FACTS = {"synthetic": "true", "source": 'a <b> & "c".jpg', "edit": "hat +1"}
_EXT = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
EVERY = [Encoding(), Encoding("jpeg"), Encoding("jpeg", 60), Encoding("webp"), Encoding("webp", 60)]


def pixels(channels: int = 3, kind: type[np.unsignedinteger] = np.uint8) -> np.ndarray:
    top = np.iinfo(kind).max
    return np.random.default_rng(0).integers(0, top, (40, 50, channels), endpoint=True, dtype=kind)


def xmp_of(data: bytes) -> ElementTree.Element:
    with Image.open(io.BytesIO(data)) as picture:
        found = picture.info.get("xmp") or picture.info["XML:com.adobe.xmp"]
    text = found.decode() if isinstance(found, bytes) else found
    return ElementTree.fromstring(text[text.index("<x:xmpmeta") : text.index("<?xpacket end")])


@pytest.mark.parametrize("encoding", [*EVERY, "16 bits"], ids=str)
def test_mark_of_iptc_and_the_facts_are_read_back(encoding: Encoding | str) -> None:
    deep = isinstance(encoding, str)
    data = encode(pixels(kind=np.uint16), FACTS) if deep else encode(pixels(), FACTS, encoding)  # type: ignore[arg-type]
    told = xmp_of(data)
    kind = told.find(f".//{_EXT}DigitalSourceType")
    assert kind is not None
    assert kind.text == "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    facts = told.find(".//{urn:boundaryflow:facts}facts")
    assert facts is not None
    assert json.loads(facts.text or "") == FACTS
    assert is_synthetic(data)
    if data.startswith(b"\x89PNG"):
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.text["synthetic"] == "true"  # type: ignore[attr-defined]


def test_drawn_pictures_are_of_an_algorithm_alone_and_others_are_not_marked() -> None:
    told = xmp_of(encode(pixels(), {"synthetic": "true", "seed": "1"}))
    assert (told.findtext(f".//{_EXT}DigitalSourceType") or "").endswith("/trainedAlgorithmicMedia")
    for encoding in EVERY:
        data = encode(pixels(), {"synthetic": "false", "source": "a"}, encoding)
        assert not is_synthetic(data)
        assert b"DigitalSourceType" not in data


def test_mark_is_seen_behind_a_large_profile() -> None:
    profile = np.random.default_rng(0).bytes(200_000)
    for encoding in EVERY:
        assert is_synthetic(encode(pixels(), FACTS, encoding, profile=profile))


@pytest.mark.parametrize("encoding", EVERY, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_every_format_takes_every_picture(encoding: Encoding, channels: int, kind: type[np.unsignedinteger]) -> None:
    data = encode(pixels(channels, kind), FACTS, encoding, background=(0, 0, 255))
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (50, 40)
        assert picture.format == encoding.format.upper()
        if encoding.format == "jpeg":
            assert picture.mode == ("L" if channels < 3 else "RGB")
    assert data == encode(pixels(channels, kind), FACTS, encoding, background=(0, 0, 255))


@pytest.mark.parametrize("encoding", [Encoding(), Encoding("webp")], ids=str)
@pytest.mark.parametrize("channels", [3, 4])
def test_png_and_webp_without_loss_keep_every_bit(encoding: Encoding, channels: int) -> None:
    with Image.open(io.BytesIO(encode(pixels(channels), FACTS, encoding))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels(channels))


def test_quality_decides_the_size() -> None:
    for kind in ("jpeg", "webp"):
        sizes = [len(encode(pixels(), {}, Encoding(kind, quality))) for quality in (10, 50, 95)]  # type: ignore[arg-type]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[2]


def test_transparent_pixels_of_a_jpeg_show_the_background() -> None:
    clear = pixels(4)
    clear[:, :, 3] = 0
    with Image.open(io.BytesIO(encode(clear, {}, Encoding("jpeg"), background=(0, 200, 0)))) as picture:
        assert np.abs(np.asarray(picture, int) - (0, 200, 0)).max() < 6


def test_picture_larger_than_the_format_is_one_line() -> None:
    with pytest.raises(ManifestError, match=r"^16384 x 2 is larger than a WEBP file can be \(16,383 pixels a side\);"):
        encode(np.zeros((2, 16_384, 3), np.uint8), {}, Encoding("webp"))


def test_files_of_others_are_not_ours() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG")
    for data in (b"", b"tEXtsynthetic\x00true", buffer.getvalue(), b"\x89PNG\r\n\x1a\n tEXtsynthetic\x00true"):
        assert not is_synthetic(data)
