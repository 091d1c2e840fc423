"""Real workers for tests: processes in one gloo group with DeepSpeed, which start once and then run many things.

The test's side is `Workers`; the file itself is what each worker runs. A worker takes one line of JSON at a time: the
name of a function in `worker_tasks.py` and its arguments.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Workers:
    """`call("train", folder=…)` runs `worker_tasks.train` on every worker and gives what each answered, by rank."""

    def __init__(self, count: int, folder: Path) -> None:
        self.count, self.folder = count, folder
        self.processes: list[subprocess.Popen[str]] = []
        self.calls = 0

    def start(self) -> Workers:
        """Begin; the first call waits until they are up."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder.mkdir(parents=True, exist_ok=True)
        for rank in range(self.count):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.count, "MASTER_PORT": port}
            place |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1, "HF_HUB_OFFLINE": 1, "PYTHONWARNINGS": "ignore"}
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, __file__, str(self.folder)],
                    env={**os.environ, **{name: str(value) for name, value in place.items()}},
                    stdin=subprocess.PIPE,
                    stdout=(self.folder / f"{rank}.log").open("a"),
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        return self

    def call(self, task: str, within_s: float = 120.0, **arguments: Any) -> list[Any]:
        """What every worker's function returned. Fails where one raised, unless the function itself caught it."""
        if not self.processes:
            self.start()
        self.calls += 1
        line = json.dumps({"call": self.calls, "task": task, "arguments": arguments}, default=str)
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
        answers = [self.folder / f"{self.calls}.{rank}.json" for rank in range(self.count)]
        deadline = time.monotonic() + within_s
        found: dict[int, Any] = {}
        while len(found) < self.count:
            found |= {rank: json.loads(a.read_text()) for rank, a in enumerate(answers) if a.exists()}
            if any("raised" in answer for answer in found.values()):
                deadline = min(deadline, time.monotonic() + 5.0)  # the others may wait in a collective for ever
            ended = [rank for rank, process in enumerate(self.processes) if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                self.stop()
                break
            time.sleep(0.01)
        raised = [answer["raised"] for answer in found.values() if "raised" in answer]
        assert not raised, f"{task}: {raised[0]}"
        assert len(found) == self.count, f"{task}: no answer within {within_s} s\n{self._tail()}"
        return [found[rank]["value"] for rank in range(self.count)]

    def stop(self) -> None:
        """End them; the next call starts new ones."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        self.processes = []

    def _tail(self) -> str:
        return "\n".join((self.folder / f"{rank}.log").read_text()[-3000:] for rank in range(self.count))


def _serve(folder: Path) -> None:
    from bizllm.train.plain import open_group

    open_group()
    spec = importlib.util.spec_from_file_location("worker_tasks", HERE / "worker_tasks.py")
    assert spec is not None and spec.loader is not None
    tasks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tasks)
    rank = os.environ["RANK"]
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"value": getattr(tasks, asked["task"])(**asked["arguments"])}
        except Exception:
            import traceback

            answer = {"raised": traceback.format_exc()}
        partial = folder / f".{asked['call']}.{rank}"
        partial.write_text(json.dumps(answer))
        partial.rename(folder / f"{asked['call']}.{rank}.json")


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
