"""Faults on order, in a driver and in Ray's workers: Python imports this file where PYTHONPATH has its folder.

BIZLLM_FAULTS names a folder. `fault.json` there says {point, nth, action}: the nth call of a function, counted over all
processes, does not go as it should, once. Points and actions are those of POINTS and of `_act`. Nothing of bizllm knows
of this. `calls.log` notes how many texts each call of a task answered.
"""

import errno
import importlib.abc
import importlib.util
import json
import os
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path

FOLDER = os.environ.get("BIZLLM_FAULTS")
# name: (module, function, whether the fault comes after the call has done its work)
POINTS = {
    "freeze": ("bizllm.jobs.freezing", "Freezer.freeze", False),
    "keep": ("bizllm.jobs.freezing", "Freezer.keep", False),
    "read": ("bizllm.tables.source", "Source.read", False),
    "hashes": ("bizllm.infer.reuse", "Hashes.work", False),
    "earlier": ("bizllm.infer.reuse", "Earlier.work", False),
    "match": ("bizllm.infer.reuse", "Match.work", False),
    "carry": ("bizllm.infer.reuse", "Carry.work", False),
    "spread": ("bizllm.infer.reuse", "Spread.work", False),
    "model": ("bizllm.tasks.summarize", "Summarize.answer", False),
    "stage": ("bizllm.infer.work", "stage", False),
    "staged": ("bizllm.infer.work", "stage", True),
    "receipt": ("bizllm.infer.receipts", "ReceiptBook.enter", False),
    "compact": ("bizllm.infer.finish", "Compact.work", False),
    "audit": ("bizllm.infer.finish", "Audit.work", False),
    "publish": ("bizllm.tables.warehouse", "Warehouse.publish", False),
    "commit": ("pyiceberg.catalog.sql", "SqlCatalog.commit_table", False),
    "committed": ("pyiceberg.catalog.sql", "SqlCatalog.commit_table", True),
    "published": ("bizllm.tables.warehouse", "Warehouse.publish", True),
    "ledger": ("bizllm.jobs.ledger", "write", False),
    "recorded": ("bizllm.jobs.ledger", "write", True),
    "clean": ("bizllm.tables.storage", "delete_tree", False),
    "output": ("bizllm.tables.storage", "open_output", False),
    "write": ("bizllm.tables.storage", "write_bytes", False),
}


def _wrapped(name, call, after):
    def wrapper(*args, **kwargs):
        if not after:
            _perhaps(name)
        result = call(*args, **kwargs)
        if after:
            _perhaps(name)
        return result

    wrapper.__name__, wrapper.__doc__ = call.__name__, call.__doc__
    return wrapper


def _counted(call):
    """Of a task's `answer`: notes how many subjects it was asked for."""

    def wrapper(self, batch):
        with open(f"{FOLDER}/calls.log", "a") as log:  # one short line: appended whole, whoever else appends
            log.write(f"{len(batch)}\n")
        return call(self, batch)

    return wrapper


def _perhaps(name):
    """Act where this is the call that was ordered."""
    try:
        order = json.loads(Path(FOLDER, "fault.json").read_text())
    except (OSError, ValueError):
        return
    if order["point"] != name:
        return
    if order["action"] == "lost" and Path(FOLDER, "acted").exists():
        _lost()
    number = 1
    while True:
        try:
            os.close(os.open(f"{FOLDER}/call-{number}", os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            number += 1
    if number == order["nth"]:
        Path(FOLDER, "acted").write_text(f"{os.getpid()}")
        _act(order["action"])


def _act(action):
    if action == "kill driver":
        os.kill(int(Path(FOLDER, "driver.pid").read_text()), signal.SIGKILL)
        time.sleep(60)  # Ray ends the worker of a driver that is gone
    elif action == "kill worker":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "kill node":
        for pid in _processes_named("raylet"):
            os.kill(pid, signal.SIGKILL)
        time.sleep(60)
    elif action == "error":
        raise OSError(errno.EIO, "the store does not answer")
    elif action == "disk full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action == "hang":
        time.sleep(600)
    elif action == "locked":
        connection = sqlite3.connect(os.environ["BIZLLM_CATALOG"], timeout=30, check_same_thread=False)
        connection.execute("BEGIN EXCLUSIVE")
        threading.Timer(3, connection.close).start()
    elif action == "lost":
        _lost()
    else:
        raise AssertionError(action)


def _lost():
    from sqlalchemy.exc import OperationalError

    raise OperationalError("update", {}, OSError("the catalog is gone"))


def _processes_named(name):
    """Of this process's session, which the test gave it."""
    session, found = os.getsid(0), []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text()
        except OSError:
            continue
        if f"({name})" in fields and int(fields.rpartition(")")[2].split()[3]) == session:
            found.append(int(stat.parent.name))
    return found


class _Patching(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of POINTS by the other finders, and changes their functions once they are loaded."""

    def __init__(self):
        self.modules = {module for module, _, _ in POINTS.values()}
        self.inner = {}

    def find_spec(self, name, path=None, target=None):
        if name not in self.modules or name in self.inner:
            return None
        self.inner[name] = None  # so that the search below does not come back here
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        self.inner[name] = spec.loader
        spec.loader = self
        return spec

    def create_module(self, spec):
        return self.inner[spec.name].create_module(spec)

    def exec_module(self, module):
        self.inner[module.__name__].exec_module(module)
        for name, (where, function, after) in POINTS.items():
            if where == module.__name__:
                *owners, last = function.split(".")
                owner = module
                for part in owners:
                    owner = getattr(owner, part)
                setattr(owner, last, _wrapped(name, getattr(owner, last), after))
        if module.__name__ == "bizllm.tasks.summarize":
            module.Summarize.answer = _counted(module.Summarize.answer)


if FOLDER:
    sys.meta_path.insert(0, _Patching())
