"""Each MIL model as ONNX operations on one bag: standardised features (n, D) -> logits (1, C), attention (n,)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from onnx import TensorProto
from torch import nn

from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.deployed.onnx_graph import OnnxGraph
from wsi_pipeline.mil.models.abmil import AttentionPooling, GatedAttention
from wsi_pipeline.mil.models.clam import ClamSB
from wsi_pipeline.mil.models.dsmil import DsMil
from wsi_pipeline.mil.models.linear import LinearMean
from wsi_pipeline.mil.models.mil_model import MilModel
from wsi_pipeline.mil.models.nystrom import PSEUDO_INVERSE_STEPS, NystromAttention
from wsi_pipeline.mil.models.pooling import MaxPooling, MeanPooling
from wsi_pipeline.mil.models.transmil import Layer as TransMilLayer
from wsi_pipeline.mil.models.transmil import PositionModule, TransMil
from wsi_pipeline.mil.trained.committee import Committee

Both = tuple[str, str]
"""Names of logits (1, C) and attention (n,)."""


def add_model(graph: OnnxGraph, features: str, model: MilModel) -> Both:
    """Standardisation and network of one model, or the mean of the members of a committee.

    Raises MilError for a network that has no ONNX form.
    """
    if isinstance(model, Committee):
        each = [add_model(graph, features, member) for member in model.members]
        return mean_of(graph, [logits for logits, _ in each]), mean_of(graph, [attention for _, attention in each])
    scale = 1 / model.feature_std
    scaled = graph.op("Mul", features, graph.constant(scale))
    standard = graph.op("Add", scaled, graph.constant(-model.feature_mean * scale))
    for kind, add in _NETWORKS.items():
        if isinstance(model.network, kind):
            return add(graph, standard, model.network)
    raise MilError(
        f"{type(model.network).__name__} has no ONNX form",
        todo="Add one to wsi_pipeline/mil/deployed/onnx_networks.py",
    )


def mean_of(graph: OnnxGraph, names: list[str]) -> str:
    """The mean of arrays of one shape."""
    return names[0] if len(names) == 1 else graph.op("Mean", *names)


def _project(graph: OnnxGraph, features: str, projection: nn.Module) -> str:
    return graph.op("Relu", graph.linear(features, cast(nn.Linear, cast(nn.Sequential, projection)[0])))


def _head(graph: OnnxGraph, embedding: str, head: nn.Module) -> str:
    return graph.linear(embedding, cast(nn.Linear, cast(nn.Sequential, head)[1]))


def _flat(graph: OnnxGraph, column: str) -> str:
    return graph.op("Reshape", column, graph.constant([-1]))


def _attention_pooling(graph: OnnxGraph, features: str, network: AttentionPooling) -> Both:
    hidden = _project(graph, features, network.projection)
    attention = network.attention
    gate = graph.op("Tanh", graph.linear(hidden, attention.v))
    if isinstance(attention, GatedAttention):
        gate = graph.op("Mul", gate, graph.op("Sigmoid", graph.linear(hidden, attention.u)))
    weights = graph.op("Softmax", graph.linear(gate, attention.w), axis=0)
    pooled = graph.op("MatMul", graph.op("Transpose", weights, perm=[1, 0]), hidden)
    return _head(graph, pooled, network.head), _flat(graph, weights)


def _clam(graph: OnnxGraph, features: str, network: ClamSB) -> Both:
    return _attention_pooling(graph, features, network.pooling)


def _mean_pooling(graph: OnnxGraph, features: str, network: MeanPooling) -> Both:
    hidden = _project(graph, features, network.projection)
    pooled = graph.op("ReduceMean", hidden, axes=[0], keepdims=1)
    return _head(graph, pooled, network.head), graph.uniform(features)


def _linear_mean(graph: OnnxGraph, features: str, network: LinearMean) -> Both:
    pooled = graph.op("ReduceMean", features, axes=[0], keepdims=1)
    return graph.linear(pooled, network.head), graph.uniform(features)


def _max_pooling(graph: OnnxGraph, features: str, network: MaxPooling) -> Both:
    hidden = _project(graph, features, network.projection)
    width = cast(nn.Linear, network.projection[0]).out_features
    winners = graph.op("ArgMax", hidden, axis=0, keepdims=0)
    share, nobody = graph.constant([1.0 / width] * width), graph.zeros(graph.length(features))
    attention = graph.op("ScatterElements", nobody, winners, share, axis=0, reduction="add")
    return _head(graph, graph.op("ReduceMax", hidden, axes=[0], keepdims=1), network.head), attention


def _dsmil(graph: OnnxGraph, features: str, network: DsMil) -> Both:
    hidden = _project(graph, features, network.projection)
    scores, queries = graph.linear(hidden, network.instance), graph.linear(hidden, network.query)
    asking = graph.op("Gather", queries, graph.op("ArgMax", scores, axis=0, keepdims=0), axis=0)
    products = graph.op("MatMul", queries, graph.op("Transpose", asking, perm=[1, 0]))
    soft = graph.op("Div", products, graph.constant(math.sqrt(network.query.out_features)))
    attention = graph.op("Softmax", soft, axis=0)
    values = graph.linear(hidden, cast(nn.Linear, network.value[1]))
    pooled = graph.op("MatMul", graph.op("Transpose", attention, perm=[1, 0]), values)
    bag = graph.linear(graph.op("Reshape", pooled, graph.constant([1, -1])), network.bag)
    highest = graph.op("ReduceMax", scores, axes=[0], keepdims=1)
    logits = graph.op("Mul", graph.op("Add", highest, bag), graph.constant(0.5))
    return logits, graph.op("ReduceMean", attention, axes=[1], keepdims=0)


def _transmil(graph: OnnxGraph, features: str, network: TransMil) -> Both:
    instances = _project(graph, features, network.projection)
    n = graph.length(instances)
    root = graph.op("Sqrt", graph.op("Cast", n, to=TensorProto.DOUBLE))  # float32 is not exact for large bags
    side = graph.op("Cast", graph.op("Ceil", root), to=TensorProto.INT64)
    extra = graph.op("Sub", graph.op("Mul", side, side), n)
    again = graph.rows(instances, 0, extra)
    tokens = graph.op("Concat", graph.constant(network.class_token), instances, again, axis=0)
    tokens = _layer(graph, tokens, network.first)
    tokens = graph.op(
        "Concat",
        graph.rows(tokens, 0, 1),
        _position(graph, graph.rows(tokens, 1, _END), side, network.position),
        axis=0,
    )
    embedding = graph.layer_norm(graph.rows(_layer(graph, tokens, network.second), 0, 1), network.norm)
    weights = _attention_of_first(graph, graph.layer_norm(tokens, network.second.norm), network.second.attention)
    every = graph.op("Relu", graph.rows(weights, 1, _END))
    repeated = graph.op("Concat", graph.rows(every, n, _END), graph.zeros(graph.op("Sub", n, extra)), axis=0)
    own = graph.op("Add", graph.rows(every, 0, n), repeated)
    total = graph.op("ReduceSum", own, graph.constant([0]), keepdims=1)
    some = graph.op("Greater", total, graph.constant(0.0))
    safe = graph.op("Where", some, total, graph.constant(1.0))
    attention = graph.op("Where", some, graph.op("Div", own, safe), graph.uniform(features))
    return _head(graph, embedding, network.head), attention


_END = 2**62


def _position(graph: OnnxGraph, tokens: str, side: str, module: PositionModule) -> str:
    convolutions = [cast(nn.Conv2d, convolution) for convolution in module.convolutions]
    dim = convolutions[0].in_channels
    shape = graph.op("Concat", graph.constant([1, dim]), side, side, axis=0)
    image = graph.op("Reshape", graph.op("Transpose", tokens, perm=[1, 0]), shape)
    mixed = image
    for convolution in convolutions:
        pads = [cast(int, convolution.padding[0])] * 4
        weight = graph.constant(convolution.weight)
        inputs = [image, weight] if convolution.bias is None else [image, weight, graph.constant(convolution.bias)]
        mixed = graph.op("Add", mixed, graph.op("Conv", *inputs, group=dim, pads=pads))
    return graph.op("Transpose", graph.op("Reshape", mixed, graph.constant([dim, -1])), perm=[1, 0])


def _layer(graph: OnnxGraph, tokens: str, layer: TransMilLayer) -> str:
    attention, normal = layer.attention, graph.layer_norm(tokens, layer.norm)
    q, k, v = _heads(graph, normal, attention)
    plain, landmarks = OnnxGraph(graph), OnnxGraph(graph)
    exact = plain.op("MatMul", _soft_product(plain, q, k), v)
    q_marks, k_marks = _marks(landmarks, q, normal, attention), _marks(landmarks, k, normal, attention)
    inner = landmarks.op("MatMul", _soft_product(landmarks, q_marks, k), v)
    inner = landmarks.op("MatMul", _core(landmarks, q_marks, k_marks, attention), inner)
    near = landmarks.op("MatMul", _soft_product(landmarks, q, k_marks), inner)
    mixed = graph.either(_few(graph, normal, attention), (plain, exact), (landmarks, near))
    width = attention.out.in_features
    joined = graph.op("Reshape", graph.op("Transpose", mixed, perm=[1, 0, 2]), graph.constant([-1, width]))
    return graph.op("Add", tokens, graph.linear(joined, attention.out))


def _attention_of_first(graph: OnnxGraph, normal: str, attention: NystromAttention) -> str:
    """Attention (t,) of the first token to all tokens, averaged over heads."""
    q, k, _ = _heads(graph, normal, attention)
    first = graph.op("Slice", q, graph.constant([0]), graph.constant([1]), graph.constant([1]))  # (heads, 1, d)
    plain, landmarks = OnnxGraph(graph), OnnxGraph(graph)
    exact = _soft_product(plain, first, k)
    q_marks, k_marks = _marks(landmarks, q, normal, attention), _marks(landmarks, k, normal, attention)
    core = _core(landmarks, q_marks, k_marks, attention)
    asked = landmarks.op("MatMul", _soft_product(landmarks, first, k_marks), core)
    near = landmarks.op("MatMul", asked, _soft_product(landmarks, q_marks, k))
    weights = graph.either(_few(graph, normal, attention), (plain, exact), (landmarks, near))
    return _flat(graph, graph.op("ReduceMean", weights, axes=[0], keepdims=0))


def _few(graph: OnnxGraph, tokens: str, attention: NystromAttention) -> str:
    """Whether there are no more tokens than landmarks, a scalar boolean."""
    few = graph.op("LessOrEqual", graph.length(tokens), graph.constant([attention.landmarks]))
    return graph.op("Squeeze", few, graph.constant([0]))


def _heads(graph: OnnxGraph, tokens: str, attention: NystromAttention) -> tuple[str, str, str]:
    """Queries, already divided by the root of their width, keys and values, (heads, t, d) each."""
    heads, width = attention.heads, attention.out.in_features // attention.heads
    every = graph.op("Reshape", graph.linear(tokens, attention.qkv), graph.constant([-1, 3, heads, width]))
    every = graph.op("Transpose", every, perm=[1, 2, 0, 3])
    q, k, v = (graph.op("Gather", every, graph.constant(number), axis=0) for number in range(3))
    return graph.op("Div", q, graph.constant(math.sqrt(width))), k, v


def _soft_product(graph: OnnxGraph, q: str, k: str) -> str:
    return graph.op("Softmax", graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 2, 1])), axis=-1)


def _marks(graph: OnnxGraph, values: str, tokens: str, attention: NystromAttention) -> str:
    """Means of consecutive tokens, (heads, landmarks, d); the first t % landmarks average one token more."""
    count, t = graph.constant([attention.landmarks]), graph.length(tokens)
    size, longer, one = graph.op("Div", t, count), graph.op("Mod", t, count), graph.constant([1])
    place = graph.op("Range", graph.constant(0), graph.op("Squeeze", t), graph.constant(1))
    more = graph.op("Add", size, one)
    edge = graph.op("Mul", longer, more)
    head = graph.op("Div", place, more)
    tail = graph.op("Add", longer, graph.op("Div", graph.op("Sub", place, edge), size))
    which = graph.op("Where", graph.op("Less", place, edge), head, tail)
    numbers = graph.constant(np.arange(attention.landmarks)[:, None])
    member = graph.number(graph.op("Equal", graph.op("Unsqueeze", which, graph.constant([0])), numbers))
    means = graph.op("Div", member, graph.op("ReduceSum", member, graph.constant([1]), keepdims=1))
    return graph.op("MatMul", means, values)


def _core(graph: OnnxGraph, q_marks: str, k_marks: str, attention: NystromAttention) -> str:
    """The pseudo-inverse of the landmarks' attention, by the iteration of `nystrom._core`."""
    a = _soft_product(graph, q_marks, k_marks)
    rows = graph.op("ReduceMax", graph.op("ReduceSum", a, graph.constant([2]), keepdims=1), axes=[1], keepdims=1)
    columns = graph.op("ReduceMax", graph.op("ReduceSum", a, graph.constant([1]), keepdims=1), axes=[2], keepdims=1)
    z = graph.op("Div", graph.op("Transpose", a, perm=[0, 2, 1]), graph.op("Mul", rows, columns))
    eye = _Eye(graph, attention.landmarks)
    for _ in range(PSEUDO_INVERSE_STEPS):
        az = graph.op("MatMul", a, z)
        inner = eye.less(7, az)
        inner = eye.less(15, graph.op("MatMul", az, inner))
        inner = eye.less(13, graph.op("MatMul", az, inner))
        z = graph.op("MatMul", graph.op("Mul", z, graph.constant(0.25)), inner)
    return z


class _Eye:
    """Multiples of the identity matrix, less something."""

    def __init__(self, graph: OnnxGraph, size: int) -> None:
        self.graph, self.matrix = graph, torch.eye(size)

    def less(self, times: float, matrix: str) -> str:
        """`times` I - matrix."""
        return self.graph.op("Sub", self.graph.constant(times * self.matrix), matrix)


_NETWORKS: dict[type[nn.Module], Callable[[OnnxGraph, str, nn.Module], Both]] = {
    AttentionPooling: cast(Callable[[OnnxGraph, str, nn.Module], Both], _attention_pooling),
    ClamSB: cast(Callable[[OnnxGraph, str, nn.Module], Both], _clam),
    MeanPooling: cast(Callable[[OnnxGraph, str, nn.Module], Both], _mean_pooling),
    LinearMean: cast(Callable[[OnnxGraph, str, nn.Module], Both], _linear_mean),
    MaxPooling: cast(Callable[[OnnxGraph, str, nn.Module], Both], _max_pooling),
    DsMil: cast(Callable[[OnnxGraph, str, nn.Module], Both], _dsmil),
    TransMil: cast(Callable[[OnnxGraph, str, nn.Module], Both], _transmil),
}
