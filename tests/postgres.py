"""A private PostgreSQL for tests, from Debian's package, on a port and in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def binaries() -> Path | None:
    """Where `initdb` and `pg_ctl` are; None where PostgreSQL is not installed."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


@contextmanager
def postgres_server() -> Iterator[str]:
    """`postgresql://loader@127.0.0.1:PORT/analytics` of a new server; the superuser is `postgres`, without passwords.

    PostgreSQL refuses to run as root: then it runs as `nobody`. Skips the test where it is not installed, but fails
    under BIZLLM_REQUIRE_POSTGRES.
    """
    folder = binaries()
    if folder is None:
        told = "PostgreSQL is not installed (Debian: postgresql)"
        if os.environ.get("BIZLLM_REQUIRE_POSTGRES"):
            pytest.fail(told)
        pytest.skip(told)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path may have 107 bytes
    who = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    if who is not None:
        os.chown(data, who.pw_uid, who.pw_gid)

    def ask(*command: str) -> None:
        as_nobody = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []} if who is not None else {}
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=data, **as_nobody)
        assert done.returncode == 0, done.stdout.decode(errors="replace")

    ask(str(folder / "initdb"), "-D", str(data / "db"), "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {data}"
    control = (str(folder / "pg_ctl"), "-D", str(data / "db"), "-w", "-l", str(data / "log"))
    try:
        ask(*control, "-o", options, "start")
        setup = "create role loader login; create database analytics owner loader"
        for statement in setup.split("; "):
            ask(str(folder / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-qc", statement)
        yield f"postgresql://loader@127.0.0.1:{port}/analytics"
    finally:
        with_log = (data / "log").read_text(errors="replace") if (data / "log").exists() else ""
        ended = subprocess.run([*control, "-m", "immediate", "stop"], capture_output=True, user=who and who.pw_uid)
        assert ended.returncode == 0, with_log
        shutil.rmtree(data, ignore_errors=True)
