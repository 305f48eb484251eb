"""CelebA's own files: their lines, what is wrong with some copies, and whose numbers are whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from boundaryflow.errors import LabelError
from boundaryflow.labelling import image_names, read_celeba, read_hq_mapping

NAMES = "5_o_Clock_Shadow Male Smiling"
CELEBA = f"3\n{NAMES} \n000001.jpg -1  1  1\n000002.jpg -1 -1  1\n000003.jpg  1 -1 -1\n"
MASK_HQ = f"2\n{NAMES}\n0.jpg  -1 1 1\n1.jpg  1 -1 -1\n"
MAPPING = "idx  orig_idx  orig_file\n0  119612  119613.jpg\n12  2  000003.jpg\n13  0  000001.jpg\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "list.txt"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text", [CELEBA, CELEBA[2:], CELEBA.replace("\n", "\r\n"), "\ufeff" + CELEBA, CELEBA.replace("-1", "0") + "\n\n"]
)
def test_published_form_is_read_by_name(tmp_path: Path, text: str) -> None:
    table = read_celeba(write(tmp_path, text))
    assert list(table.columns) == ["file", *NAMES.split()]
    assert table["file"].tolist() == ["000001.jpg", "000002.jpg", "000003.jpg"]
    assert [v.replace("-1", "0") for v in table["Smiling"]] == ["1", "1", "0"]


def test_two_blanks_after_the_name_shift_nothing(tmp_path: Path) -> None:
    assert read_celeba(write(tmp_path, MASK_HQ)).iloc[0].tolist() == ["0.jpg", "-1", "1", "1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CELEBA.split("\n", 2)[2], r"line 1 must be the names of the attributes, and is a row \(000001.jpg\); put"),
        ("3\n" + CELEBA.split("\n", 2)[2], "line 2 must be the names of the attributes, and is a row"),
        (CELEBA.replace("3\n", "4\n", 1), "line 1 says 4 rows, but there are 3; the file is incomplete"),
        (CELEBA + "000004.jpg 1 1 1\n", "line 1 says 3 rows, but there are 4"),
        (CELEBA.replace("1\n000003", "\n000003"), "line 4 has 2 values after 000002.jpg, must have 3, one per name"),
        (CELEBA.replace("1\n000003", "1 1\n000003"), "line 4 has 4 values after 000002.jpg, must have 3"),
        (CELEBA.replace(" 1 -1 -1", " 1 5 -1"), "line 5 has '5' for Male, must be -1 or 1"),
        (f"a title\n{CELEBA}", "line 2 has 0 values after 3, must have 2"),
        ("3\n", "line 1 is all there is; names and rows must follow"),
        (NAMES, "line 1 is all there is; rows must follow"),
        ("0\n" + NAMES, "line 2 is all there is; rows must follow"),
        ("", "is empty"),
        ("Male Male\n1.jpg 1 1\n", "line 1 has the name 'Male' twice"),
        ("image_id,Male\n1.jpg,1\n", "line 1 has commas; this is a CSV table, read it with kind csv"),
        ("file Male\n1.jpg 1 1\n", "line 1 has the name 'file', which is not an attribute"),
        ("<html><body>quota</body></html>", "is a web page"),
    ],
)
def test_copy_that_was_changed_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        read_celeba(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_mapping_is_read(tmp_path: Path) -> None:
    assert read_hq_mapping(write(tmp_path, MAPPING)) == {"119613.jpg": 0, "000003.jpg": 12, "000001.jpg": 13}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MAPPING.split("\n", 1)[1], "line 1 must be the header idx orig_idx orig_file"),
        (MAPPING + "14 3\n", "line 5 must be a number of CelebA-HQ, one of CelebA and a file name"),
        (MAPPING + "x 3 000009.jpg\n", "line 5 must be a number of CelebA-HQ"),
        (MAPPING + "14 3 000001.jpg\n", "line 5 has 000001.jpg a second time"),
        (MAPPING + "12 3 000009.jpg\n", "line 1 is followed by two rows for number 12; keep one"),
    ],
)
def test_mapping_that_was_changed_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_hq_mapping(write(tmp_path, text))


ROWS = ["000001.jpg", "000002.jpg", "000003.jpg"]
TO_HQ = {"119613.jpg": 0, "000003.jpg": 12, "000001.jpg": 13}


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["12.jpg", "13.jpg"], ["13.jpg", None, "12.jpg"]),
        (["hq/00012.png", "hq/00013.png"], ["00013.jpg", None, "00012.jpg"]),
        (["12.jpg", "00013.jpg"], ["00013.jpg", None, "12.jpg"]),
    ],
)
def test_mapping_turns_names_of_celeba_into_numbers_of_celeba_hq(images: list[str], names: list[str | None]) -> None:
    assert image_names(ROWS, images, "l.txt", TO_HQ) == names


@pytest.mark.parametrize(
    ("rows", "images", "mapping", "message"),
    [
        (ROWS, ["12.jpg", "00012.png"], TO_HQ, "images 12 and 00012 may both be number 12; rename one"),
        (
            ["12.jpg", "13.jpg"],
            ["12.jpg"],
            TO_HQ,
            r"no row is named as in the mapping \(12.jpg against 119613.jpg\); if",
        ),
        (ROWS, ["000001.jpg"], TO_HQ, r"images are named as CelebA names its own \(000001\), and a mapping is given"),
        (
            ROWS,
            ["12.jpg", "13.jpg"],
            None,
            r"rows have CelebA's names \(000001\), images CelebA-HQ's numbers \(12\); give",
        ),
        (ROWS, ["00012.jpg"], None, "give CelebA-HQ-to-CelebA-mapping.txt as mapping"),
    ],
)
def test_numbers_of_the_two_sets_are_never_mixed_up(
    rows: list[str], images: list[str], mapping: dict[str, int] | None, message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        image_names(rows, images, "l.txt", mapping)


def test_numbers_of_celeba_hq_find_images_with_zeros_in_front() -> None:
    rows = ["0.jpg", "12.jpg"]
    assert image_names(rows, ["00000.jpg", "00012.jpg"], "l.txt", None) == ["00000.jpg", "00012.jpg"]
    assert image_names(rows, ["0.jpg", "12.jpg"], "l.txt", None) == rows
    assert image_names(rows, ["000012.jpg"], "l.txt", None) == rows  # CelebA's 12th is another face
    assert image_names(["0", "12"], ["000012.jpg"], "l.txt", None) == rows  # with a suffix never joined by value
    assert image_names(ROWS, ["x/000001.jpg"], "l.txt", None) == ROWS
