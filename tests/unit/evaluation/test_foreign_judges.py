"""Judges from elsewhere: what a declaration says is what the network gets, and all else is refused in one line."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boundaryflow.errors import CheckpointError
from boundaryflow.evaluation.declared import read_declaration
from boundaryflow.evaluation.foreign import MAX_BYTES, open_network
from boundaryflow.evaluation.judges import JudgeNet, save_judge
from boundaryflow.evaluation.panel import load_judges
from tests.foreign_judges import channel_means, declare, tflite_means

COLOURS = torch.tensor([0.2, 0.4, 0.8]).view(1, 3, 1, 1)


def picture(side: int = 4) -> torch.Tensor:
    return COLOURS.expand(1, 3, side, side).contiguous()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0.2, 0.4, 0.8]),
        ({"channel_order": "bgr"}, [0.8, 0.4, 0.2]),
        ({"range": [0, 255]}, [51, 102, 204]),
        ({"range": [-1, 1]}, [-0.6, -0.2, 0.6]),
        ({"range": [0, 255], "mean": [1, 2, 4], "std": [5, 10, 50]}, [10, 10, 4]),
        ({"channel_order": "bgr", "mean": [0.8, 0.4, 0.2]}, [0, 0, 0]),
        ({"channel_order": "grey"}, [0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.8]),
    ],
)
def test_network_gets_the_declared_order_and_range(
    tmp_path: Path, changes: dict[str, Any], expected: list[float]
) -> None:
    ready = read_declaration(declare(tmp_path, "a", **changes)).prepare(picture())
    torch.testing.assert_close(ready[0, :, 0, 0], torch.tensor(expected, dtype=torch.float32), atol=1e-5, rtol=0)
    assert ready.shape == (1, len(expected), 4, 4)


def test_layout_crop_and_size(tmp_path: Path) -> None:
    image = torch.zeros(1, 3, 8, 8)
    image[:, :, 2:6, 1:3] = 1  # white within the crop only
    box = {"left": 1, "top": 2, "width": 2, "height": 4}
    said = declare(tmp_path, "a", layout="nhwc", input_size=[6, 12], image_size=8, crop=box)
    ready = read_declaration(said).prepare(image)
    assert ready.shape == (1, 12, 6, 3)
    torch.testing.assert_close(ready, torch.ones_like(ready))


def test_grey_pictures_are_repeated_for_a_network_of_colour(tmp_path: Path) -> None:
    ready = read_declaration(declare(tmp_path, "a")).prepare(torch.full((2, 1, 4, 4), 0.3))
    assert ready.shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("activation", "attributes", "expected"),
    [
        ("none", {"hat": 0, "beard": [1, 2]}, [0.25, 0.75]),
        ("sigmoid", {"hat": 2}, [1 / (1 + np.exp(-0.5))]),
        ("softmax", {"hat": [0, 1, 2]}, [1.0]),
        ("softmax", {"hat": 2}, [np.exp(0.5) / (np.exp(0.5) + 2 * np.exp(0.25))]),
    ],
)
def test_outputs_become_probabilities(
    tmp_path: Path, activation: str, attributes: dict[str, Any], expected: list[float]
) -> None:
    declared = read_declaration(declare(tmp_path, "a", activation=activation, attributes=attributes))
    found = declared.probabilities(torch.tensor([[0.25, 0.25, 0.5]]))
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float32))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "judge"}, "kind is 'judge', must be one of classify, embed"),
        ({"layout": None}, "lacks layout"),
        ({"rnge": [0, 1]}, "has no key 'rnge'; did you mean 'range'"),
        ({"file": "../net.onnx"}, "must be the name of a file beside the declaration"),
        ({"file": "/etc/net.onnx"}, "must be the name of a file beside the declaration"),
        ({"file": "net.pt"}, r"must be a network that ends in .onnx or .tflite"),
        ({"sha256": "12"}, "must be 64 hexadecimal digits"),
        ({"input_size": [4]}, r"must be width and height"),
        ({"input_size": [4, 10**6]}, "height of input_size is 1000000, must be a whole number of 1 to 4,096"),
        ({"input_size": [4, True]}, "height of input_size is True"),
        ({"channel_order": "cmyk"}, "must be one of rgb, bgr, grey"),
        ({"layout": "chw"}, "must be one of nchw, nhwc"),
        ({"range": [1, 1]}, "range must be two different numbers"),
        ({"range": [0, 1e300]}, "range is .* must be 2 numbers"),
        ({"mean": [1, 2]}, "mean is .* must be 3 numbers"),
        ({"std": [1, 0, 1]}, "std must not be 0"),
        ({"crop": {"left": 0, "top": 0, "width": 4, "height": 4}}, "say in image_size which size"),
        ({"crop": {"left": 1, "top": 0, "width": 4, "height": 4}, "image_size": 4}, "leaves a picture of 4 x 4"),
        ({"crop": [1, 2, 3, 4], "image_size": 4}, "must have the keys left, top, width, height"),
        ({"attributes": {}}, "must say which output is which attribute"),
        ({"attributes": {"hat": -1}}, "must be the number of an output, from 0 on"),
        ({"attributes": {"hat": True}}, "must be the number of an output, from 0 on"),
        ({"attributes": {"hat": [1, 1]}}, "names an output twice"),
        ({"attributes": {"hat": [1, 2]}}, "sigmoid do not add up"),
        ({"attributes": {"ha\nt": 1}}, "is not a valid attribute name"),
        ({"activation": "tanh"}, "must be one of none, sigmoid, softmax"),
        ({"distance": "cosine"}, "has no key 'distance'"),
        (
            {"kind": "embed", "activation": None, "attributes": None},
            "lacks distance, which a judge of kind embed needs",
        ),
    ],
)
def test_impossible_declaration_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        read_declaration(declare(tmp_path, "a", **changes))
    assert "\n" not in str(caught.value)


def test_declaration_that_is_no_json_or_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.judge.json"
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_declaration(path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        read_declaration(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="a FIFO, not a regular file"):
        read_declaration(path)


def test_onnx_network_judges_by_its_declared_output(tmp_path: Path) -> None:
    channel_means(tmp_path)
    declare(tmp_path, "colour", attributes={"blue": 2, "red": 0}, activation="none")
    judges = load_judges(tmp_path)
    assert judges.attributes == ("blue", "red")
    torch.testing.assert_close(judges.probabilities(picture(16)), torch.tensor([[0.8, 0.2]]))
    assert judges.probabilities(picture().expand(200, 3, 4, 4)).shape == (200, 2)
    assert judges.identity(picture()) is None


def test_network_of_one_picture_at_a_time_judges_many(tmp_path: Path) -> None:
    channel_means(tmp_path, shape=[1, 3, 4, 4])
    declare(tmp_path, "colour", activation="none", attributes={"red": 0})
    found = load_judges(tmp_path).probabilities(torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 3, 4, 4))
    torch.testing.assert_close(found[:, 0], torch.linspace(0, 1, 5))


def test_tflite_network_judges_by_its_declared_output(tmp_path: Path) -> None:
    tflite_means(tmp_path / "grey.tflite")
    about = {"file": "grey.tflite", "channel_order": "grey", "layout": "nhwc"}
    declare(tmp_path, "grey", **about, attributes={"bright": 0}, activation="none")
    images = torch.linspace(0, 1, 3).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    torch.testing.assert_close(load_judges(tmp_path).probabilities(images)[:, 0], torch.linspace(0, 1, 3))


def test_of_several_classifiers_declared_ones_decide_before_ours(tmp_path: Path) -> None:
    net = JudgeNet(3, [8], 4, 2, "classify")
    config = {"channels": 3, "widths": [8], "image_size": 4, "num_outputs": 2}
    save_judge(tmp_path, "classify", net, config, ["red", "beard"])
    channel_means(tmp_path)
    declare(tmp_path, "b", activation="none", attributes={"red": 0})
    declare(tmp_path, "a", activation="none", attributes={"blue": 2})
    judges = load_judges(tmp_path)
    assert judges.deciding == {"red": "b", "blue": "a", "beard": "attributes"}
    assert judges.attributes == ("blue", "red", "beard")
    found, verdicts = judges.probabilities(picture()), judges.verdicts(picture())
    torch.testing.assert_close(found[0, :2], torch.tensor([0.8, 0.2]))
    assert float(found[0, 2]) == float(verdicts["attributes"][0, 1])


@pytest.mark.parametrize(("distance", "far"), [("cosine", [0.0, 1.0, 0.0]), ("l2", [0.5, 0.4, 0.8])])
def test_identity_by_a_declared_distance(tmp_path: Path, distance: str, far: list[float]) -> None:
    channel_means(tmp_path)
    declare(tmp_path, "colour", attributes={"red": 0}, activation="none")
    declare(tmp_path, "who", kind="embed", activation=None, attributes=None, distance=distance, threshold=0.1)
    judges = load_judges(tmp_path)
    before = judges.identity(picture())
    other = judges.identity(torch.tensor(far).view(1, 3, 1, 1).expand(1, 3, 4, 4))
    assert before is not None
    assert other is not None
    torch.testing.assert_close(before, torch.tensor([[0.2, 0.4, 0.8]]))
    same = [judges.same_person(before, after) for after in (before, other)]
    assert [bool(s) for s in same if s is not None] == [True, False]


@pytest.mark.parametrize(
    ("network", "declared", "words"),
    [
        ({"shape": ["N", 3, 8, 4]}, {}, r"takes \[any, 3, 8, 4\], but .* say \[any, 3, 4, 4\]"),
        ({}, {"layout": "nhwc"}, r"takes \[any, 3, 4, 4\], but .* say \[any, 4, 4, 3\]"),
        ({}, {"channel_order": "grey"}, r"say \[any, 1, 4, 4\]"),
        ({"shape": [8, 3, 4, 4]}, {}, "takes batches of 8"),
        ({"dtype": 11}, {}, "takes float64, only float32"),
        ({"outputs": ["a", "b"]}, {}, "output must say which of a, b is read"),
        ({}, {"output": "c"}, "output is 'c', there is means"),
        ({}, {"attributes": {"hat": 3}}, "names output 3, but the network has 0 to 2"),
        ({}, {"activation": "none", "range": [0, 255]}, "gives 127.5, which is not a probability"),
        ({"op": "Mine", "domain": "my.operators"}, {}, "my.operators:Mine.* is not a registered function"),
        ({"location": "../more.bin"}, {}, "escapes model directory"),
        ({"location": "/etc/hostname"}, {}, "Absolute path not allowed"),
        ({"location": "link.bin"}, {}, "escapes model directory"),
    ],
)
def test_network_that_is_not_as_declared_is_refused_in_one_line(
    tmp_path: Path, network: dict[str, Any], declared: dict[str, Any], words: str
) -> None:
    (tmp_path / "more.bin").write_bytes(bytes(12))
    (tmp_path / "judges").mkdir()
    (tmp_path / "judges/link.bin").symlink_to(tmp_path / "more.bin")
    channel_means(tmp_path / "judges", **network)
    declare(tmp_path / "judges", "a", **declared)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_judges(tmp_path / "judges")
    assert "\n" not in str(caught.value)


def test_weights_beside_the_network_are_read(tmp_path: Path) -> None:
    channel_means(tmp_path, location="more.bin")
    (tmp_path / "more.bin").write_bytes(np.array([0.1, 0, 0], np.float32).tobytes())
    declare(tmp_path, "a", activation="none", attributes={"red": 0})
    assert float(load_judges(tmp_path).probabilities(picture())) == pytest.approx(0.3)


def test_file_that_is_missing_damaged_or_too_large_is_refused(tmp_path: Path) -> None:
    net = channel_means(tmp_path)
    whole, path = net.read_bytes(), declare(tmp_path, "a")
    found = hashlib.sha256(whole).hexdigest()
    declare(tmp_path, "a", sha256=found.upper())
    load_judges(tmp_path)
    declare(tmp_path, "a", sha256="0" * 64)
    with pytest.raises(CheckpointError, match=f"has sha256 {found}, declared is 0000"):
        load_judges(tmp_path)
    path.unlink()
    for content in (b"", b"x" * 1000, whole[:40]):
        net.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be opened"):
            open_network(net)
    os.truncate(net, MAX_BYTES + 1)
    with pytest.raises(CheckpointError, match="more than the 1,073,741,824 that are read"):
        open_network(net)
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_network(tmp_path / "none.onnx")


@pytest.mark.parametrize(("ending", "module"), [("onnx", "onnxruntime"), ("tflite", "ai_edge_litert.interpreter")])
def test_missing_reader_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, module: str
) -> None:
    (tmp_path / f"net.{ending}").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CheckpointError, match=rf"run pip install 'boundaryflow\[{ending}\]'$"):
        open_network(tmp_path / f"net.{ending}")


def test_damaged_tflite_is_refused(tmp_path: Path) -> None:
    net = tflite_means(tmp_path / "net.tflite")
    for content in (b"", b"x" * 1000, net.read_bytes()[:60]):
        net.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be opened"):
            open_network(net)


def test_declaration_with_the_name_of_our_own_classifier_is_refused(tmp_path: Path) -> None:
    declare(tmp_path, "attributes")
    with pytest.raises(CheckpointError, match="and not attributes; rename it"):
        load_judges(tmp_path)
