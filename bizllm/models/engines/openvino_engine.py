"""OpenVINO on a CPU: float32, bfloat16, or int8 quantized by NNCF (post-training, on the step's own texts)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from bizllm.models import batches
from bizllm.models.batches import Floats, Whole, Windows
from bizllm.models.engines.base import CPU_BUDGET, Name, Network, Precision, example, positional

FILE = "openvino.xml"
CALIBRATION_BATCHES = 64


class Converted:
    """A converted network. As many batches are under way at once as there are threads: one thread computes a batch
    faster than two compute it together."""

    name: Name = "openvino"
    on_gpu = False

    def __init__(self, network: Network, folder: Path, precision: Precision, threads: int) -> None:
        """folder: where `convert` (or `quantize`) wrote the network."""
        import openvino

        self.network, self.precision, self.budget = network, precision, CPU_BUDGET
        # What int8 leaves to floating point is computed in bfloat16 where the machine can.
        low = precision == "bfloat16" or (precision == "int8" and batches.native_bfloat16("cpu"))
        config = {
            "INFERENCE_PRECISION_HINT": "bf16" if low else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "ENABLE_CPU_PINNING": False,  # the workers of a node would share the first cores
        }
        self.compiled = openvino.Core().compile_model(str(folder / FILE), "CPU", config)
        self.requests = [self.compiled.create_infer_request() for _ in range(threads)]

    def outputs(self, windows: Windows) -> Iterator[tuple[Whole, Floats]]:
        """As of `Engine`."""
        free, running = deque(self.requests), deque[tuple[Any, Whole]]()
        for rows in batches.by_budget(windows.lengths, self.budget):
            if not free:
                yield from self._ended(windows, *running.popleft(), free)
            request = free.popleft()
            request.start_async(self._inputs(windows, rows), share_inputs=True)
            running.append((request, rows))
        while running:
            yield from self._ended(windows, *running.popleft(), free)

    def _ended(self, windows: Windows, request: Any, rows: Whole, free: deque[Any]) -> Iterator[tuple[Whole, Floats]]:
        def again(rows: Whole) -> Floats:
            request.infer(self._inputs(windows, rows))
            return _output(request)

        try:
            request.wait()
        except RuntimeError:  # not enough memory perhaps
            yield from batches.within_memory(again, rows)
        else:
            yield rows, _output(request)
        free.append(request)

    def _inputs(self, windows: Windows, rows: Whole) -> list[Whole]:
        arrays = batches.padded(windows, rows, self.network.pad)
        return [arrays[name] for name in self.network.inputs]


def convert(network: Network, folder: Path) -> None:
    """Write the network as OpenVINO's own format, float32, rows and tokens dynamic."""
    import openvino
    import torch

    inputs = example(network)
    with torch.inference_mode():
        model = openvino.convert_model(positional(network), example_input=inputs)
    for port, name in zip(model.inputs, network.inputs, strict=True):
        port.get_node().set_friendly_name(name)
        port.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
        port.get_node().set_element_type(openvino.Type.i64)
    model.validate_nodes_and_infer_types()
    openvino.save_model(model, str(folder / FILE), compress_to_fp16=False)


def quantize(network: Network, converted: Path, folder: Path, windows: Windows, spare: bool) -> None:
    """Write what `convert` wrote, its matrix products in int8, with the ranges of activations that the windows show.

    Post-training quantization as NNCF does it for transformers, smooth-quant included (Xiao et al. 2023).
    spare: products that bring a wide layer back to the width of the vectors stay as they are: they meet the activations
    that quantize worst (Bondarenko, Nagel & Blankevoort 2021).
    """
    import nncf
    import openvino

    nncf.set_log_level(40)
    model = openvino.Core().read_model(str(converted / FILE))

    def inputs(rows: Whole) -> list[Whole]:
        arrays = batches.padded(windows, rows, network.pad)
        return [arrays[name] for name in network.inputs]

    some = list(batches.by_budget(windows.lengths, 512))
    chosen = [some[i] for i in np.unique(np.linspace(0, len(some) - 1, CALIBRATION_BATCHES).astype(int))]
    with redirect_stdout(StringIO()):  # its progress bars
        quantized = nncf.quantize(
            model,
            nncf.Dataset(chosen, inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(chosen),
            ignored_scope=nncf.IgnoredScope(names=_narrowing(model) if spare else []),
            fast_bias_correction=True,
        )
    openvino.save_model(quantized, str(folder / FILE), compress_to_fp16=False)


def _narrowing(model: Any) -> list[str]:
    """Names of the products with weights that have at least twice as many inputs as outputs."""
    found = []
    for node in model.get_ops():
        if node.get_type_name() != "MatMul":
            continue
        shape = node.input_value(1).get_partial_shape()
        if shape.is_static and len(shape) == 2 and node.get_attributes().get("transpose_b"):
            outputs, inputs = shape.to_shape()
            found += [node.get_friendly_name()] if inputs >= 2 * outputs else []
    return found


def _output(request: Any) -> Floats:
    return np.array(request.get_output_tensor(0).data, np.float32)
