"""A PostgreSQL server of a test's own: Debian's programs, a new folder, a free port, no root."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "infra/catalog"
PASSWORDS = {"BIZLLM_JOB_PASSWORD": "job/p@ss", "BIZLLM_READER_PASSWORD": "reader", "MLFLOW_PASSWORD": "models"}


def programs() -> Path | None:
    """Where initdb and its like are; None without them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@dataclass
class Server:
    """A server whose superuser `postgres` comes by its socket; who else comes how, its pg_hba.conf says."""

    bin: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """For its client programs, as the superuser."""
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, **PASSWORDS, "PATH": path, "PGHOST": str(self.folder), "PGPORT": str(self.port)} | {
            "PGUSER": "postgres"
        }

    def start(self) -> None:
        settings = {"listen_addresses": "127.0.0.1", "fsync": "off", "shared_buffers": "32MB", "ssl": "on"}
        settings |= {"dynamic_shared_memory_type": "mmap"}  # leaves nothing in /dev/shm, however it ends
        settings |= {"ssl_cert_file": f"{self.certificate}", "ssl_key_file": f"{self.folder / 'key.pem'}"}
        settings |= {"hba_file": f"{self.folder / 'pg_hba.conf'}"}
        command = [self.bin / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **_unprivileged())  # type: ignore[call-overload]
        for _ in range(300):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            ready = [self.bin / "pg_isready", "-q", "-h", str(self.folder), "-p", str(self.port)]
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        """At once, as when the machine goes down; connections break."""
        assert self.process is not None
        self.process.send_signal(3)  # SIGQUIT: immediate shutdown
        self.process.wait(timeout=20)

    def run(self, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """A client program or one of infra/catalog's scripts."""
        return subprocess.run(
            list(map(str, command)), env=self.environment | more, capture_output=True, text=True, timeout=60
        )

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What the superuser is told."""
        done = self.run("psql", "-X", "-At", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def certificate(self) -> Path:
        """Of the server and of the authority that clients trust."""
        return self.folder / "certificate.pem"

    def uri(self, user: str, password: str, database: str = "bizllm_catalog", tls: str = "verify-full") -> str:
        """As a job writes it; what stands in a variable is percent-encoded, too."""
        trust = f"sslmode={tls}&sslrootcert={self.certificate}"
        return f"postgresql+psycopg2://{user}:{password}@127.0.0.1:{self.port}/{database}?{trust}"


@contextmanager
def started(access: str) -> Iterator[Server]:
    """One without databases. access: its pg_hba.conf. Skips the test where PostgreSQL is not installed, but fails
    under BIZLLM_REQUIRE_POSTGRES."""
    bin_ = programs()
    if bin_ is None:
        told = "PostgreSQL is not installed (Debian: postgresql)"
        (pytest.fail if os.environ.get("BIZLLM_REQUIRE_POSTGRES") else pytest.skip)(told)
    folder = Path(tempfile.mkdtemp(prefix="bizllm-pg-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = Server(bin_, folder, probe.getsockname()[1])
    try:
        _certify(server.certificate, folder / "key.pem")
        (folder / "pg_hba.conf").write_text(access)
        if os.geteuid() == 0:
            for place in (folder, *folder.iterdir()):
                os.chown(place, _nobody().pw_uid, _nobody().pw_gid)
        make = [bin_ / "initdb", "-D", folder / "data", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(make, capture_output=True, text=True, **_unprivileged())  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def catalog() -> Iterator[Server]:
    """One with the roles and databases of databases.sql."""
    with started(hba()) as server:
        made = server.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", FOLDER / "databases.sql")
        assert made.returncode == 0, made.stderr
        yield server


@contextmanager
def analytics() -> Iterator[str]:
    """`postgresql://loader@127.0.0.1:PORT/analytics`, whose owner needs no password; nor does `postgres`."""
    with started("local all all trust\nhost all all 127.0.0.1/32 trust\n") as server:
        for statement in ("create role loader login", "create database analytics owner loader"):
            server.sql(statement)
        yield f"postgresql://loader@127.0.0.1:{server.port}/analytics"


def hba() -> str:
    """The project's file for a server whose only network is this machine, and whose superuser may be anybody here."""
    text = (FOLDER / "pg_hba.conf").read_text()
    return re.sub(r"10\.0\.0\.0/\d+", "127.0.0.1/32", text).replace("peer", "trust")


def _certify(certificate: Path, key: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "catalog")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key.write_bytes(private.private_bytes(*form))
    key.chmod(0o600)


def _nobody() -> pwd.struct_passwd:
    """initdb refuses root."""
    return pwd.getpwnam("nobody")


def _unprivileged() -> dict[str, int]:
    return {"user": _nobody().pw_uid, "group": _nobody().pw_gid} if os.geteuid() == 0 else {}
