"""A graph of ONNX operations, built by hand: nodes in order, constants by value. Needs the package `onnx`.

Written by hand rather than traced: such a graph does not change with PyTorch's exporter, takes bags of any size, and
contains no operations that only training needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

OPSET, IR_VERSION = 17, 8
"""ONNX 1.12: read by ONNX Runtime 1.12 and newer."""


class OnnxGraph:
    """Nodes and constants; every method adds a node and returns the name of its output.

    A child graph is the branch of a condition: it sees the names of its parent and shares its constants.
    """

    def __init__(self, parent: OnnxGraph | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {} if parent is None else parent.constants
        self._counter: list[int] = [0] if parent is None else parent._counter

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        output = self._name(kind.lower())
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, value: Tensor | NDArray[Any] | Sequence[float] | float) -> str:
        """A constant: tensors and floats are float32, whole numbers int64."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        name = self._name("c")
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        return name

    def linear(self, rows: str, layer: nn.Linear) -> str:
        """The layer on rows (n, in) -> (n, out)."""
        product = self.op("MatMul", rows, self.constant(layer.weight.t()))
        return product if layer.bias is None else self.op("Add", product, self.constant(layer.bias))

    def layer_norm(self, rows: str, layer: nn.LayerNorm) -> str:
        """Layer normalisation over the last axis."""
        weight, bias = self.constant(layer.weight), self.constant(layer.bias)
        return self.op("LayerNormalization", rows, weight, bias, axis=-1, epsilon=layer.eps)

    def length(self, rows: str) -> str:
        """Number of rows, int64 (1,)."""
        return self.op("Slice", self.op("Shape", rows), self.constant([0]), self.constant([1]))

    def rows(self, values: str, start: str | int, stop: str | int) -> str:
        """The rows start to stop; numbers, or names of int64 (1,)."""
        first, last = (self.constant([at]) if isinstance(at, int) else at for at in (start, stop))
        return self.op("Slice", values, first, last, self.constant([0]))

    def number(self, whole: str) -> str:
        """int64 as float32."""
        return self.op("Cast", whole, to=TensorProto.FLOAT)

    def zeros(self, count: str) -> str:
        """float32 zeros (count,)."""
        return self.op("ConstantOfShape", count, value=helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))

    def uniform(self, rows: str) -> str:
        """Equal weights (n,) that sum to 1."""
        count = self.length(rows)
        return self.op("Expand", self.op("Reciprocal", self.number(count)), count)

    def either(self, condition: str, yes: tuple[OnnxGraph, str], no: tuple[OnnxGraph, str]) -> str:
        """The output of one of two branches."""
        branches = [helper.make_graph(graph.nodes, self._name("branch"), [], [_any(name)]) for graph, name in (yes, no)]
        return self.op("If", condition, then_branch=branches[0], else_branch=branches[1])

    def model(
        self, dim: int, outputs: dict[str, tuple[str, list[int | str]]], notes: dict[str, str]
    ) -> onnx.ModelProto:
        """The model of the graph: input `features` (n, dim); outputs by name: the node, and the shape."""
        for name, (node, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [node], [name]))
        float32 = TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            "slide_level_model",
            [helper.make_tensor_value_info("features", float32, ["patches", dim])],
            [helper.make_tensor_value_info(name, float32, shape) for name, (_, shape) in outputs.items()],
            list(self.constants.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="wsi-pipeline")
        model.ir_version = IR_VERSION
        helper.set_model_props(model, notes)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _name(self, stem: str) -> str:
        self._counter[0] += 1
        return f"{stem}_{self._counter[0]}"


def _any(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
