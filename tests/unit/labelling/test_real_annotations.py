"""The annotation files of CelebA and CelebA-HQ, read whole."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from boundaryflow.jobs.inspection import inspect
from boundaryflow.labelling import read_annotations, read_celeba

CELEBA = {"Male": 84_434, "Smiling": 97_669, "Eyeglasses": 13_193, "Bald": 4_547, "Young": 156_734}
"""Positives among 202,599; METHOD_FACTS has their shares, .4168, .4821, .0651, .0224 and .7736."""
NUM_CELEBA, NUM_HQ, PARTS = 202_599, 30_000, {"train": 162_770, "val": 19_867, "test": 19_962}


@pytest.fixture
def annotations(shared: Path) -> Path:
    folder = shared / "assets/celeba_annotations"
    if not folder.is_dir():
        pytest.skip("../shared/assets/celeba_annotations is not there: it has the label files of CelebA")
    return folder


@pytest.mark.parametrize("count", ["", f"{NUM_CELEBA}\n"], ids=["as mirrored", "official, with its count"])
def test_attributes_of_celeba_are_read_whole(annotations: Path, tmp_path: Path, count: str) -> None:
    path = tmp_path / "list_attr_celeba.txt"
    with zipfile.ZipFile(annotations / "list_attr_celeba.zip") as archive:
        path.write_bytes(count.encode() + archive.read("list_attr_celeba.txt"))
    table = read_celeba(path)
    assert table.shape == (NUM_CELEBA, 41)
    assert table["file"].iloc[[0, -1]].tolist() == ["000001.jpg", "202599.jpg"]
    assert {name: int((table[name] == "1").sum()) for name in CELEBA} == CELEBA


def test_attributes_of_celeba_hq_are_read_whole(annotations: Path) -> None:
    table = read_celeba(annotations / "CelebAMask-HQ-attribute-anno.txt")
    assert table.shape == (NUM_HQ, 41)
    assert table["file"].iloc[-1] == "29999.jpg"
    # CelebA-HQ has more women than CelebA: 36.9 % are men
    assert int((table["Male"] == "1").sum()) == 11_057


def test_partition_of_celeba_is_read_to_its_last_line(annotations: Path) -> None:
    path = annotations / "list_eval_partition.txt"
    assert not path.read_bytes().endswith(b"\n")
    facts = inspect(str(path))
    assert (facts["rows"], facts["split"]) == (NUM_CELEBA, PARTS)


def test_table_of_celeba_in_0_and_1_agrees_with_it(annotations: Path) -> None:
    table = read_annotations(annotations / "celeba-att-male-partitions.csv")
    assert len(table) == NUM_CELEBA
    assert int(table["Male"].astype(int).sum()) == CELEBA["Male"]
    assert table["Partition"].astype(int).value_counts().to_dict() == dict(enumerate(PARTS.values()))
