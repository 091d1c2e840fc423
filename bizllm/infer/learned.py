"""What a step learned of the tables that it reads whole, as one file beside its table."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np
import pyarrow as pa

from bizllm.tables import storage
from bizllm.tasks.base import Learned

_TABLE = "table:"  # before the name of a tensor that is an Arrow table


def to_bytes(learned: Learned) -> bytes:
    """One safetensors file: arrays as they are, Arrow tables as bytes of their IPC stream, all else as JSON in its
    header. Nothing in it is ever run."""
    from safetensors.numpy import save

    tensors, said = {}, {}
    for name, value in learned.items():
        assert not name.startswith(_TABLE)
        if isinstance(value, np.ndarray):
            tensors[name] = np.ascontiguousarray(value)
        elif isinstance(value, pa.Table):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, value.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
                stream.write_table(value)
            tensors[f"{_TABLE}{name}"] = np.frombuffer(sink.getvalue(), np.uint8)
        else:
            said[name] = value
    return save(tensors, {"bizllm": json.dumps(said, ensure_ascii=False, sort_keys=True)})


@lru_cache(maxsize=2)  # a process that works without a model is asked anew for each unit
def load(url: str) -> Learned:
    """What `to_bytes` made, from where it was kept. Raises RunError where the store fails."""
    from safetensors.numpy import load as tensors_of

    content = storage.read_bytes(url)
    length = int.from_bytes(content[:8], "little")
    learned: Learned = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["bizllm"])
    for name, tensor in tensors_of(content).items():
        if name.startswith(_TABLE):
            learned[name.removeprefix(_TABLE)] = pa.ipc.open_stream(pa.py_buffer(tensor)).read_all()
        else:
            learned[name] = tensor
    return learned
