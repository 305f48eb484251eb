"""Networks from elsewhere, made by hand: ONNX and TFLite files of a few bytes, with their declarations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def declare(folder: Path, name: str, **changes: Any) -> Path:
    """Write a declaration of a colour network of 4 x 4 whose output 1 tells hats; None leaves a key out."""
    said: dict[str, Any] = {
        "kind": "classify",
        "file": "net.onnx",
        "input_size": [4, 4],
        "channel_order": "rgb",
        "layout": "nchw",
        "range": [0, 1],
        "activation": "sigmoid",
        "attributes": {"hat": 1},
    }
    said = {key: value for key, value in (said | changes).items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.judge.json"
    path.write_text(json.dumps(said))
    return path


def channel_means(folder: Path, file: str = "net.onnx", **changes: Any) -> Path:
    """Write a network whose outputs are the means of its input's channels, in their order.

    Args:
        folder: Where.
        file: Its name.
        changes: `shape` of its input; `outputs` names; `op` and `domain` of its node; `location` of further weights in
            a file of their own, which are added.
    """
    onnx = pytest.importorskip("onnx", reason="needs the extra dev (onnx)")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    shape: Sequence[Any] = changes.get("shape", ["N", 3, 4, 4])
    names, domain = changes.get("outputs", ["means"]), changes.get("domain", "")
    tensors = [helper.make_tensor("axes", kind.INT64, [2], [2, 3])]
    nodes = [helper.make_node(changes.get("op", "ReduceMean"), ["x", "axes"], ["m"], keepdims=0, domain=domain)]
    if location := changes.get("location"):
        apart = onnx.TensorProto(name="more", data_type=kind.FLOAT, dims=[3], data_location=kind.EXTERNAL)
        apart.external_data.add(key="location", value=location)
        tensors.append(apart)
    nodes += [
        helper.make_node("Add" if location else "Identity", ["m", "more"] if location else ["m"], [n]) for n in names
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", changes.get("dtype", kind.FLOAT), shape)],
        [helper.make_tensor_value_info(name, changes.get("dtype", kind.FLOAT), [shape[0], shape[1]]) for name in names],
        tensors,
    )
    versions = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(helper.make_model(graph, opset_imports=versions, ir_version=10).SerializeToString())
    return folder / file


def tflite_means(path: Path, channels: int = 1) -> Path:
    """Write a TFLite network of [1,4,4,C] whose outputs are the means of its channels."""
    flatbuffers = pytest.importorskip("flatbuffers", reason="needs the extra tflite")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="needs the extra tflite")

    def tensor(name: str, shape: list[int], buffer: int, kind: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.type = name.encode(), shape, buffer, kind
        return made

    axes, code, mean, graph, model = (
        schema.BufferT(), schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    )  # fmt: skip
    axes.data = np.array([1, 2], np.int32).view(np.uint8)
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.MEAN
    mean.opcodeIndex, mean.inputs, mean.outputs = 0, [0, 1], [2]
    mean.builtinOptionsType, mean.builtinOptions = schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT()
    mean.builtinOptions.keepDims = False
    float32, int32 = schema.TensorType.FLOAT32, schema.TensorType.INT32
    graph.tensors = [
        tensor("x", [1, 4, 4, channels], 0, float32),
        tensor("axes", [2], 1, int32),
        tensor("y", [1, channels], 0, float32),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [mean]
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers = [schema.BufferT(), axes]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(builder.Output()))
    return path
