"""ONNX Runtime on a CPU: float32, or int8 quantized by its own tool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bizllm.models import batches
from bizllm.models.batches import Floats, Whole, Windows
from bizllm.models.engines.base import CPU_BUDGET, Name, Network, Precision, example, positional

FILE = "model.onnx"
OPSET = 17


class Converted:
    """An exported network."""

    name: Name = "onnxruntime"
    on_gpu = False

    def __init__(self, network: Network, folder: Path, precision: Precision, threads: int) -> None:
        """folder: where `convert` (or `quantize`) wrote the network."""
        import onnxruntime

        self.network, self.precision, self.budget = network, precision, CPU_BUDGET
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])

    def outputs(self, windows: Windows) -> Iterator[tuple[Whole, Floats]]:
        """As of `Engine`."""

        def run(rows: Whole) -> Floats:
            made: Floats = self.session.run(None, batches.padded(windows, rows, self.network.pad))[0]
            return made

        for batch in batches.by_budget(windows.lengths, self.budget):
            yield from batches.within_memory(run, batch)


def convert(network: Network, folder: Path) -> None:
    """Write the network as ONNX, float32, rows and tokens dynamic."""
    import torch

    names = list(network.inputs)
    axes = {name: {0: "rows", 1: "tokens"} for name in names}
    axes["outputs"] = {0: "rows", 1: "tokens"} if network.kind == "tags" else {0: "rows"}
    with torch.inference_mode():
        torch.onnx.export(
            positional(network),
            example(network),
            str(folder / FILE),
            input_names=names,
            output_names=["outputs"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def quantize(network: Network, converted: Path, folder: Path, windows: Windows, spare: bool) -> None:
    """Write what `convert` wrote, its matrix products in int8; the ranges of activations are those of each batch.

    (Ranges from a sample of windows, for good, made five times as many labels differ.) spare: products that bring a
    wide layer back to the width of the vectors stay in float32.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = folder / "ready.onnx"
    quant_pre_process(str(converted / FILE), str(ready), skip_symbolic_shape=True)
    quantize_dynamic(
        str(ready),
        str(folder / FILE),
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_narrowing(onnx.load(str(ready))) if spare else [],
        extra_options={"MatMulConstBOnly": True},
    )
    ready.unlink()


def _narrowing(model: Any) -> list[str]:
    """Names of the products with weights that have at least twice as many inputs as outputs."""
    shapes = {weights.name: list(weights.dims) for weights in model.graph.initializer}
    products = (node for node in model.graph.node if node.op_type == "MatMul")
    known = ((node.name, shapes.get(node.input[1], [])) for node in products)
    return [name for name, shape in known if len(shape) == 2 and shape[0] >= 2 * shape[1]]
