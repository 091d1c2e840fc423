"""ONNX Runtime on a CPU: float32, or int8 quantized by its own tool on the step's own texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bizllm.models import batches
from bizllm.models.batches import Floats, Whole, Windows
from bizllm.models.engines.base import CPU_BUDGET, Name, Network, Positional, Precision, example

FILE = "model.onnx"
OPSET = 17
CALIBRATION_BATCHES = 32


class Converted:
    """An exported network."""

    name: Name = "onnxruntime"

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
            Positional.of(network),
            example(network),
            str(folder / FILE),
            input_names=names,
            output_names=["outputs"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def quantize(network: Network, converted: Path, folder: Path, windows: Windows) -> None:
    """Write what `convert` wrote, its matrix products in int8, with the ranges of activations that the windows show."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    some = list(batches.by_budget(windows.lengths, 512))
    places = np.unique(np.linspace(0, len(some) - 1, CALIBRATION_BATCHES).astype(int))
    chosen = iter([some[i] for i in places])

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
            rows = next(chosen, None)
            return None if rows is None else batches.padded(windows, rows, network.pad)

    ready = folder / "ready.onnx"
    quant_pre_process(str(converted / FILE), str(ready), skip_symbolic_shape=True)
    quantize_static(
        str(ready),
        str(folder / FILE),
        Reader(),
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    ready.unlink()
