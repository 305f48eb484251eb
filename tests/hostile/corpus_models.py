"""Hostile files and folders of weights: TorchScript, pickles, safetensors, diffusers folders, judges, boundaries.

Longer than other files because it is mostly tables, a line per input.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

MARK = "PWNED_BY_A_MODEL"
"""Name of the file that the hostile ones would write into the current folder, were they run."""
SCHEDULER = {"beta_schedule": "linear", "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
UNET: dict[str, Any] = {
    "sample_size": 8, "in_channels": 3, "out_channels": 3, "layers_per_block": 1, "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4, "attention_head_dim": 8,
}  # fmt: skip
_HUGE = 10**12


class Calls:
    """Pickled as a call of os.system that would write the file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARK}",)


def saved(content: Any, *, old: bool = False) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


def rezipped(data: bytes, changed: Mapping[str, bytes], *, kind: int = zipfile.ZIP_STORED) -> bytes:
    """A torch archive with members added or in the place of others, the name within the archive's one folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", kind) as new:
        root = old.namelist()[0].partition("/")[0]
        members = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
        for name, content in {**members, **changed}.items():
            new.writestr(f"{root}/{name}", content)
    return buffer.getvalue()


def script(body: str) -> bytes:
    """A TorchScript archive whose code has a `__setstate__` of its own."""
    code = f"class Evil(Module):\n  def __setstate__(self, state: Tuple[Tensor, bool]) -> None:\n{body}"
    plan = saved({"token_embedding.weight": torch.zeros(3)})
    with zipfile.ZipFile(io.BytesIO(plan)) as archive:
        tensor = archive.read("archive/data.pkl")
    begin = b"\x80\x02c__torch__\nEvil\n)\x81"
    return rezipped(plan, {
        "data.pkl": begin + tensor[2:-1] + b"b.", "code/__torch__.py": code.encode(), "constants.pkl": b"\x80\x02).",
    })  # fmt: skip


def instructions(plan: bytes) -> bytes:
    """A torch archive with a plan written by hand."""
    return rezipped(saved({"a": torch.zeros(3)}), {"data.pkl": plan})


def restated(data: bytes, old: int, new: int) -> bytes:
    """A torch archive whose plan says another number than it did, wherever it says that one."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        plan = archive.read("archive/data.pkl")
    parts: list[bytes] = []
    found = list(pickletools.genops(plan))
    for (opcode, argument, at), (_, _, after) in zip(found, [*found[1:], (None, None, len(plan))], strict=True):
        is_it = opcode.name in ("BININT", "BININT1", "BININT2") and argument == old
        parts.append(pickle.dumps(new, 2)[2:-1] if is_it else plan[at or 0 : after])
    return rezipped(data, {"data.pkl": b"".join(parts)})


TORCH: dict[str, Callable[[], bytes]] = {
    "script_writes": lambda: script(f'    _0 = torch.save(state[0], "{MARK}")\n    return None\n'),
    "script_loops": lambda: script("    while True:\n      pass\n    return None\n"),
    "script_without_a_module": lambda: rezipped(saved({"a": torch.zeros(3)}), {"constants.pkl": b"\x80\x02)."}),
    "pickle_calls": lambda: saved({"token_embedding.weight": Calls()}),
    "pickle_calls_as_script": lambda: rezipped(saved({"a": Calls()}), {"constants.pkl": b"\x80\x02)."}),
    "old_pickle_calls": lambda: saved({"a": Calls()}, old=True),
    "plain_pickle": lambda: pickle.dumps({"a": 1}),
    "plain_pickle_calls": lambda: pickle.dumps(Calls()),
    "plain_pickle_in_text": lambda: pickle.dumps(Calls(), 0),
    "stride_0": lambda: saved({"a": torch.zeros(1).expand(60_000, 60_000)}),
    "sparse": lambda: saved({"a": torch.eye(3).to_sparse()}),
    "meta": lambda: saved({"a": torch.zeros(3, device="meta")}),
    "shape_of_1e12": lambda: restated(saved({"a": torch.zeros(77)}), 77, _HUGE),
    "shape_beyond_64_bits": lambda: restated(saved({"a": torch.zeros(77)}), 77, 2**80),
    "shape_negative": lambda: restated(saved({"a": torch.zeros(77)}), 77, -77),
    "empty_and_1e18": lambda: restated(saved({"a": torch.zeros(0, 77)}), 77, 10**18),
    "old_1e12": lambda: saved({"a": torch.zeros(77)}, old=True).replace(b"K\x4d", b"J\xff\xff\xff\x7f"),
    "compressed": lambda: rezipped(saved({"a": torch.zeros(2**20)}), {}, kind=zipfile.ZIP_DEFLATED),
    "plan_of_1_GB": lambda: instructions_of_zeros(),
    "storage_missing": lambda: instructions(saved_plan({"a": torch.zeros(3), "b": torch.zeros(3)})),
    "many_names_of_one": lambda: saved(dict.fromkeys(map(str, range(2000)), torch.zeros(5000))),
    "deep_tuples": lambda: instructions(b"\x80\x02)" + b"\x85" * 50_000 + b"."),
    "memo_of_1e9": lambda: instructions(b"\x80\x02]r\xff\xff\xff\x7f."),
    "bytes_of_1e18": lambda: instructions(b"\x80\x04\x8e" + (10**18).to_bytes(8, "little") + b"."),
    "no_end": lambda: instructions(b"\x80\x02]"),
    "nothing_on_the_stack": lambda: instructions(b"\x80\x02R."),
    "changes_a_function": lambda: instructions(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\0\0\0aK\x01sb."),
    "calls_torch_load": lambda: instructions(b"\x80\x02ctorch\nload\nX\x01\0\0\0a\x85R."),
    "another_zip": lambda: zipped({"a.txt": b"a"}),
    "int_keys": lambda: saved({1: torch.zeros(3), "token_embedding.weight": torch.zeros(3)}),
    "clip_scalars": lambda: saved(dict.fromkeys(("token_embedding.weight", "ln_final.weight"), torch.tensor(1.0))),
    "clip_half": lambda: saved({"token_embedding.weight": torch.zeros(3, 3)}),
    "clip_number": lambda: saved({"token_embedding.weight": 3}),
    "list_of_nothing": lambda: saved([]),
    "ddpm_of_1e9_levels": lambda: saved(_marks("down.999999999.block.0.conv1.weight")),
    "ddpm_of_words": lambda: saved(_marks("down.x.block.0.conv1.weight")),
    "ddpm_of_scalars": lambda: saved(_marks("down.0.block.0.conv1.weight", torch.zeros(1))),
}  # fmt: skip
"""Content of files that torch might have saved."""


def _marks(name: str, value: Tensor | None = None) -> dict[str, Tensor]:
    tensor = torch.zeros(2, 2) if value is None else value
    return dict.fromkeys(("temb.dense.0.weight", "conv_in.weight", "norm_out.weight", "conv_out.weight", name), tensor)


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip archive, compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def instructions_of_zeros() -> bytes:
    """A compressed plan that is much larger than what is read of one."""
    return zipped({"archive/data.pkl": b"\x80\x02" + bytes(33 * 2**20)})


def saved_plan(content: Any) -> bytes:
    """The plan of what torch.save writes."""
    with zipfile.ZipFile(io.BytesIO(saved(content))) as archive:
        return archive.read("archive/data.pkl")


def with_header(header: Any, content: bytes = b"") -> bytes:
    """A safetensors file with a header of its own."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


def _entry(dtype: str, shape: list[Any], end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


def _told(about: Any) -> dict[str, str]:
    return {"boundaryflow": about if isinstance(about, str) else json.dumps(about)}


SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "list": lambda: with_header([1]),
    "nothing": lambda: b"",
    "cut": lambda: save({"a": torch.zeros(9)})[:-1],
    "header_of_1e18": lambda: (10**18).to_bytes(8, "little") + b"{}",
    "deep": lambda: with_header(b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "not_utf_8": lambda: with_header(b'{"\xff": 1}'),
    "digits": lambda: with_header(b'{"a": ' + b"9" * 5000 + b"}"),
    "entry_list": lambda: with_header({"a": [1]}),
    "shape_negative": lambda: with_header({"a": _entry("F32", [-1], 4)}, bytes(4)),
    "shape_of_1e12": lambda: with_header({"a": _entry("F32", [_HUGE], 4)}, bytes(4)),
    "shape_of_words": lambda: with_header({"a": _entry("F32", ["x"], 4)}, bytes(4)),
    "f4": lambda: with_header({"a": _entry("F4", [8], 4)}, bytes(4)),
    "metadata_list": lambda: with_header({"__metadata__": [1], "a": _entry("F32", [1], 4)}, bytes(4)),
    "about_no_json": lambda: save({"a": torch.zeros(1)}, _told("{")),
    "about_list": lambda: save({"a": torch.zeros(1)}, _told([1])),
    "about_nan": lambda: save({"a": torch.zeros(1)}, _told('{"schema": NaN}')),
    "about_deep": lambda: save({"a": torch.zeros(1)}, _told("[" * 50_000 + "]" * 50_000)),
    "shard_without_items": lambda: shard_without_items(),
    "of_no_family": lambda: save({"a\x1b[31m": torch.zeros(1)}),
}
"""Content of safetensors files that are nothing else."""

_CALIBRATION = {"mean_positive": 1.0, "mean_negative": -1.0, "sd": 1.0, "auc": 0.9, "num": 10}
_PLANE: dict[str, Any] = {"intercept": 0.0, "space": "eps", "t": 5, "attribute": "hat", "model_sha256": "a" * 64,
                          "calibration": _CALIBRATION}  # fmt: skip


def boundary(change: Mapping[str, Any] = {}, normal: Tensor | None = None, **top: Any) -> bytes:  # noqa: B006
    """A boundary of seven dimensions, some of whose facts are wrong."""
    unit = torch.ones(7) / 7**0.5 if normal is None else normal
    about = {"schema": "boundary/2", "attribute": "hat", "boundaries": {"eps": {**_PLANE, **change}}, **top}
    return _boundary(about, {"eps.normal": unit})


def patterned_boundary(pattern: Tensor, name: str = "h@0") -> bytes:
    """A boundary with one hyperplane between noised images, and a pattern."""
    about = {"schema": "boundary/2", "attribute": "hat", "boundaries": {"h@0": {**_PLANE, "space": "h", "t": 0}}}
    return _boundary(about, {"h@0.normal": torch.ones(7) / 7**0.5, f"{name}.pattern": pattern})


def noised_boundary(*spaces: str) -> bytes:
    """A boundary with a hyperplane between noised images in each of the spaces, at timesteps 0, 1 and so on."""
    planes = {f"{space}@{t}": {**_PLANE, "space": space, "t": t} for t, space in enumerate(spaces)}
    about = {"schema": "boundary/2", "attribute": "hat", "boundaries": planes}
    return _boundary(about, {f"{name}.normal": torch.ones(7) / 7**0.5 for name in planes})


def _boundary(about: Any, tensors: dict[str, Tensor]) -> bytes:
    text = json.dumps(about).replace('"intercept": 9999', '"intercept": 1e999')
    return save(tensors, _told(text))


def shard_without_items() -> bytes:
    """A shard whose digest is right, and which names no items."""
    about = {"schema": "shard/2"}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return save({}, _told({**about, "sha256": digest}))


BOUNDARIES: dict[str, Callable[[], bytes]] = {
    "nan": lambda: boundary(normal=torch.full((7,), torch.nan)),
    "not_unit": lambda: boundary(normal=torch.ones(7)),
    "whole_numbers": lambda: boundary(normal=torch.ones(1).long()),
    "two_axes": lambda: boundary(normal=torch.ones(1, 1)),
    "extra_key": lambda: boundary({"more": 1}),
    "no_planes": lambda: boundary(boundaries={}),
    "planes_list": lambda: boundary(boundaries=[1]),
    "plane_number": lambda: boundary(boundaries={"eps": 3}),
    "other_space": lambda: boundary({"space": "z"}),
    "other_layer": lambda: boundary({"space": "up_blocks.1:4"}),
    "layer_pooled_to_nothing": lambda: noised_boundary("up_blocks.1:0"),
    "layer_of_control_characters": lambda: noised_boundary("up\n\x1b[31m:4"),
    "layer_of_1000_characters": lambda: noised_boundary("a" * 1000 + ":4"),
    "layer_without_pool": lambda: noised_boundary("up_blocks.1"),
    "noised_eps": lambda: noised_boundary("eps"),
    "two_layers": lambda: noised_boundary("up_blocks.1:4", "up_blocks.1:8"),
    "layer_and_h": lambda: noised_boundary("h", "up_blocks.1:4"),
    "space_list": lambda: boundary({"space": ["eps"]}),
    "t_word": lambda: boundary({"t": "5"}),
    "t_true": lambda: boundary({"t": True}),
    "t_negative": lambda: boundary({"t": -1}),
    "intercept_1e400": lambda: boundary({"intercept": 9999}),
    "intercept_1e400_written_out": lambda: boundary({"intercept": 10**400}),
    "other_attribute": lambda: boundary(attribute="beard"),
    "no_attribute": lambda: boundary(attribute=None),
    "calibration_words": lambda: boundary({"calibration": dict.fromkeys(_CALIBRATION, "x")}),
    "calibration_null": lambda: boundary({"calibration": None}),
    "pattern_nan": lambda: patterned_boundary(torch.full((7,), torch.nan)),
    "pattern_infinite": lambda: patterned_boundary(torch.full((7,), torch.inf)),
    "pattern_1e38": lambda: patterned_boundary(torch.full((7,), 1e38)),
    "pattern_whole_numbers": lambda: patterned_boundary(torch.ones(7).long()),
    "pattern_of_six": lambda: patterned_boundary(torch.ones(6)),
    "pattern_two_axes": lambda: patterned_boundary(torch.ones(1, 7)),
    "pattern_empty": lambda: patterned_boundary(torch.ones(0)),
    "pattern_of_no_plane": lambda: patterned_boundary(torch.ones(7), "h@1"),
}
"""Content of boundary files."""

JUDGE: dict[str, Any] = {"channels": 3, "widths": [8], "image_size": 4, "num_outputs": 2}
JUDGE_SHAPES = {"body.0.0.weight": (8, 3, 3, 3), "body.0.1.weight": (8,), "body.0.1.bias": (8,), "head.weight": (2, 32),
                "head.bias": (2,)}  # fmt: skip


def judge(change: Mapping[str, Any], names: Any = ("hat", "beard"), **tensors: Tensor | None) -> bytes:
    """A classifier of 4 x 4 pictures; what is None is left out."""
    made = {name: torch.zeros(shape) for name, shape in JUDGE_SHAPES.items()}
    made |= {name.replace("__", "."): tensor for name, tensor in tensors.items()}  # pyright: ignore[reportAssignmentType]
    there = {name: tensor for name, tensor in made.items() if tensor is not None}  # pyright: ignore[reportUnnecessaryComparison]
    about = {"kind": "classify", "config": {**JUDGE, **change}, "names": list(names) if names != 5 else 5}
    return save(there, _told(about))


JUDGES: dict[str, Callable[[], bytes]] = {
    "shape": lambda: judge({}, head__bias=torch.zeros(3)),
    "missing": lambda: judge({}, head__bias=None),
    "extra": lambda: judge({}, more=torch.zeros(3)),
    "nan": lambda: judge({}, head__bias=torch.tensor([0, torch.nan])),
    "whole_numbers": lambda: judge({}, head__bias=torch.zeros(2).long()),
    "widths_100k": lambda: judge({"widths": [8] * 100_000}),
    "widths_7": lambda: judge({"widths": [7]}),
    "widths_1e9": lambda: judge({"widths": [8 * 10**9]}),
    "widths_none": lambda: judge({"widths": []}),
    "widths_word": lambda: judge({"widths": "88"}),
    "outputs_1e10": lambda: judge({"num_outputs": 10**10}),
    "image_size_0": lambda: judge({"image_size": 0}),
    "image_size_true": lambda: judge({"image_size": True}),
    "names_fewer": lambda: judge({}, names=("hat",)),
    "names_5": lambda: judge({}, names=5),
    "names_numbers": lambda: judge({}, names=(1, 2)),
}
"""Content of a classifier's file."""


@functools.cache
def _unet_shapes() -> dict[str, tuple[int, ...]]:
    from diffusers.models.unets.unet_2d import UNet2DModel  # takes seconds to import

    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in UNet2DModel(**UNET).state_dict().items()}


def diffusers_folder(
    folder: Path,
    config: Mapping[str, Any] = {},
    scheduler: Mapping[str, Any] = {},
    dtype: torch.dtype = torch.float16,  # noqa: B006
) -> Path:
    """A diffusers folder, some of whose values are wrong."""
    folder.mkdir(parents=True)
    weights = {name: torch.zeros(shape, dtype=dtype) for name, shape in _unet_shapes().items()}
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(save(weights))
    (folder / "config.json").write_text(json.dumps({**UNET, **config}))
    (folder / "scheduler_config.json").write_text(json.dumps({**SCHEDULER, **scheduler}))
    return folder


_WRONG_CONFIGS: dict[str, dict[str, Any]] = {
    "widths_1e9": {"block_out_channels": [8, 10**9]}, "widths_word": {"block_out_channels": "88"},
    "layers_negative": {"layers_per_block": -3}, "layers_word": {"layers_per_block": "2"},
    "layers_3e6": {"layers_per_block": 3_000_000}, "layers_1000": {"layers_per_block": 1000},
    "size_0": {"sample_size": 0}, "size_negative": {"sample_size": -64}, "size_2e30": {"sample_size": 2 * 10**30},
    "size_true": {"sample_size": True}, "size_odd": {"sample_size": 9}, "size_list": {"sample_size": [8, 8]},
    "activation": {"act_fn": "evil"}, "groups_0": {"norm_num_groups": 0}, "groups_3": {"norm_num_groups": 3},
    "block_unknown": {"down_block_types": ["DownBlock2D", "EvilBlock2D"]}, "block_number": {"up_block_types": [1, 2]},
    "block_list_short": {"down_block_types": ["DownBlock2D"]}, "middle_null": {"mid_block_type": None},
    "epsilon_nan": {"norm_eps": float("nan")}, "epsilon_negative": {"norm_eps": -1.0},
    "epsilon_1e400": {"norm_eps": 10**400}, "padding_negative": {"downsample_padding": -1},
    "flag_word": {"flip_sin_to_cos": "yes"}, "head_0": {"attention_head_dim": 0},
    "scale_0": {"mid_block_scale_factor": 0},
    "channels_0": {"in_channels": 0, "out_channels": 0}, "channels_true": {"in_channels": True, "out_channels": True},
    "dropout_word": {"dropout": "0"}, "kind_list": {"_class_name": ["UNet2DModel"]},
}  # fmt: skip
_WRONG_SCHEDULES: dict[str, dict[str, Any]] = {
    "betas_nan": {"trained_betas": [0.1, float("nan")]}, "betas_words": {"trained_betas": ["a", "b"]},
    "betas_number": {"trained_betas": 0.1}, "betas_beyond": {"trained_betas": [0.1, 1.5]},
    "betas_empty": {"trained_betas": []}, "betas_all_noise": {"trained_betas": [0.99] * 1000},
    "timesteps_1e12": {"num_train_timesteps": 10**12}, "timesteps_true": {"num_train_timesteps": True},
    "timesteps_word": {"num_train_timesteps": "1000"}, "start_nan": {"beta_start": float("nan")},
    "kind_list": {"beta_schedule": ["linear"]},
}  # fmt: skip
_DEEP = b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"


def _fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _zeros(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def _changed(name: str, change: Callable[[Path], object]) -> Callable[[Path], Path]:
    """A diffusers folder of which one file is something else."""

    def make(folder: Path) -> Path:
        made = diffusers_folder(folder)
        change(made / name)
        return made

    return make


FOLDERS: dict[str, Callable[[Path], Path]] = {
    **{f"config_{n}": functools.partial(diffusers_folder, config=c) for n, c in _WRONG_CONFIGS.items()},
    **{f"schedule_{n}": functools.partial(diffusers_folder, scheduler=s) for n, s in _WRONG_SCHEDULES.items()},
    **{f"weights_{t}": functools.partial(diffusers_folder, dtype=getattr(torch, t))
       for t in ("int8", "bool", "complex64")},
    "config_deep": _changed("config.json", lambda path: path.write_bytes(_DEEP)),
    "config_nothing": _changed("config.json", lambda path: path.write_bytes(b"")),
    "config_utf_16": _changed("config.json", lambda path: path.write_text("{}", encoding="utf-16")),
    "config_digits": _changed("config.json", lambda path: path.write_text(f'{{"sample_size": {"9" * 5000}}}')),
    "config_fifo": _changed("config.json", _fifo),
    "config_zeros": _changed("config.json", _zeros),
    "config_large": _changed("config.json", lambda path: os.truncate(path, 2**30)),
    "sidecar_deep": _changed("boundaryflow.json", lambda path: path.write_bytes(_DEEP)),
    "sidecar_fifo": _changed("boundaryflow.json", _fifo),
    "sidecar_size_1e9": _changed("boundaryflow.json", lambda path: path.write_text('{"pixel_unshuffle": 1000000000}')),
    "schedule_fifo": _changed("scheduler_config.json", _fifo),
    "index_deep": _changed("model_index.json", lambda path: path.write_bytes(_DEEP)),
    "weights_fifo": _changed("diffusion_pytorch_model.safetensors", _fifo),
    "weights_zeros": _changed("diffusion_pytorch_model.safetensors", _zeros),
}  # fmt: skip
"""Diffusers folders."""


def _file(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


def _special(name: str, change: Callable[[Path], None]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        change(folder / name)
        return folder / name

    return make


def _below(name: str, make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    return lambda folder: make(folder / name)


def _declared(**changes: Any) -> bytes:
    """A declaration of a network that is not there, or is no file."""
    said = {"kind": "classify", "file": "f_zeros.onnx", "input_size": [4, 4], "channel_order": "rgb", "layout": "nchw"}
    said |= {"range": [0, 1], "activation": "none", "attributes": {"hat": 0}, **changes}
    return json.dumps(said).encode()


FOREIGN: dict[str, Callable[[], bytes]] = {
    "zeros.onnx": lambda: bytes(4096),
    "text.onnx": lambda: b"import os; os.system('touch pwned')\n" * 100,
    "deep.onnx": lambda: b"\x3a\x7e" * 5000,
    "zeros.tflite": lambda: bytes(4096),
    "offsets.tflite": lambda: b"\x18\x00\x00\x00TFL3" + b"\xff" * 4096,
    "absent.judge.json": _declared,
    "outside.judge.json": lambda: _declared(file="../../../../etc/passwd"),
    "device.judge.json": lambda: _declared(file="/dev/zero"),
    "huge.judge.json": lambda: _declared(input_size=[10**9, 10**9]),
    "outputs_1e18.judge.json": lambda: _declared(attributes={"hat": 10**18}),
    "control.judge.json": lambda: _declared(file="\x1b[31m.onnx"),
    "nested.judge.json": lambda: b'{"a":' * 100_000,
    "list.judge.json": lambda: b"[]",
}


CASES: dict[str, Callable[[Path], Path]] = {
    **{f"torch_{n}": _file(f"torch_{n}.pt", content) for n, content in TORCH.items()},
    **{f"safetensors_{n}": _file(f"st_{n}.safetensors", content) for n, content in SAFETENSORS.items()},
    **{f"boundary_{n}": _file(f"b_{n}.safetensors", content) for n, content in BOUNDARIES.items()},
    **{f"judge_{n}": _file(f"j_{n}.safetensors", content) for n, content in JUDGES.items()},
    **{f"foreign_{n}": _file(f"f_{n}", content) for n, content in FOREIGN.items()},
    **{f"folder_{n}": _below(f"d_{n}", make) for n, make in FOLDERS.items()},
    "weights_fifo": _special("fifo.pt", _fifo),
    "weights_zeros": _special("zeros.safetensors", _zeros),
}
"""Name of a case to what writes it below a folder and gives its path. All of them must be refused."""
