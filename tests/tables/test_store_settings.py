"""The `storage:` section: read and checked, carried as environment variables, obeyed by boto3 and pyarrow."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from bizllm.errors import RunError, UserError
from bizllm.jobs.job import load_job
from bizllm.tables import retry, s3_clients, storage
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.store_settings import ROLE, StorageSettings, configure, configured
from bizllm.tables.warehouse import Warehouse

KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ROLE_ARN = "arn:aws:iam::123456789012:role/nightly"


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    configure(None)
    s3_clients.forget()


@pytest.fixture
def bucket(s3_endpoint: str) -> str:
    name = f"lake-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Any]:
    def read(section: str) -> Any:
        steps = "{s: {task: summarize, input: t, text: b}}"
        job = f"name: shop\nwarehouse: {{path: wh}}\nsources: {{t: {{path: t}}}}\nsteps: {steps}\n"
        (tmp_path / "shop.yaml").write_text(f"{job}storage: {section}\n")
        return load_job(str(tmp_path / "shop.yaml"))

    return read


def test_the_section_is_variables_while_its_file_is_the_newest(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "before")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    configure(load("{endpoint: 'https://s3.lan', region: eu-west-1, profile: nightly}").job.storage)
    assert os.environ["AWS_ENDPOINT_URL_S3"] == "https://s3.lan" and os.environ["AWS_REGION"] == "eu-west-1"
    assert set(configured()) == {"AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"}
    configure(load("{role: '" + ROLE_ARN + "'}").job.storage)
    assert os.environ["AWS_REGION"] == "before" and "AWS_PROFILE" not in os.environ
    assert configured() == {ROLE: ROLE_ARN}
    configure(None)
    assert ROLE not in os.environ and configured() == {}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{endpoint: s3.lan}", "storage.endpoint: 's3.lan': expected an address that starts with https://"),
        ("{role: nightly}", "storage.role: 'nightly': expected an ARN"),
        ("{ca_bundle: ca.pem}", "storage.ca_bundle: .*expected a PEM file that is there"),
        ("{verify: false}", "storage.verify: .*unknown"),
        ("{access_key_id: AKIA}", "storage.access_key_id: .*unknown"),
        ("{endpoint: 'https://me:hunter2@s3.lan'}", r"storage.endpoint: holds a password; expected a variable"),
        ("{timeout_s: 0}", "storage.timeout_s: 0"),
    ],
)
def test_faults_of_the_section(load: Any, section: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        load(section)
    assert "hunter2" not in str(caught.value)


def test_a_role_is_assumed_for_boto3_and_for_streams(
    bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto's STS gives keys of the role's session; both clients sign with them."""
    configure(StorageSettings(endpoint=s3_endpoint, sts_endpoint=s3_endpoint, role=ROLE_ARN))
    url = f"s3://{bucket}/x"
    storage.write_bytes(url, b"1")
    with storage.open_input(url) as stream:
        assert stream.read() == b"1"
    with storage.open_output(f"s3://{bucket}/y") as sink:
        sink.write(b"22")
    assert [file.size for file in storage.list_files(f"s3://{bucket}")] == [1, 2]
    credentials = s3_clients._session(s3_clients.environment()).get_credentials()
    assert credentials is not None
    first = credentials.get_frozen_credentials().access_key
    assert first != os.environ["AWS_ACCESS_KEY_ID"] and first.startswith("ASIA")
    store = pickle.loads(pickle.dumps(storage.filesystem(url)[0]))
    s3_clients.forget()
    assert store.get_file_info(f"{bucket}/x").size == 1, "a filesystem that is kept takes the newest keys"


def test_a_profile_counts_for_streams_too(
    bucket: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that assumes a role through another profile: pyarrow by itself would not find its keys."""
    told = (
        f"[profile base]\naws_access_key_id = a\naws_secret_access_key = b\n[profile nightly]\nrole_arn = {ROLE_ARN}\n"
    )
    (tmp_path / "config").write_text(told + "source_profile = base\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    configure(StorageSettings(endpoint=s3_endpoint, sts_endpoint=s3_endpoint, profile="nightly"))
    with storage.open_output(f"s3://{bucket}/x") as sink:
        sink.write(b"1")
    assert storage.read_bytes(f"s3://{bucket}/x") == b"1"
    credentials = s3_clients._session(s3_clients.environment()).get_credentials()
    assert credentials is not None and credentials.get_frozen_credentials().access_key.startswith("ASIA")
    configure(StorageSettings(endpoint=s3_endpoint, profile="nobody"))
    for act in (storage.read_bytes, storage.open_input):
        with pytest.raises(RunError, match=r"no usable credentials \(ProfileNotFound\)"):
            act(f"s3://{bucket}/x")


def test_a_role_that_can_not_be_assumed(bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "ATTEMPTS", 1)
    configure(StorageSettings(endpoint=s3_endpoint, sts_endpoint="http://127.0.0.1:9", role=ROLE_ARN))
    with pytest.raises(RunError, match="can't connect"):
        storage.read_bytes(f"s3://{bucket}/x")


def test_the_buckets_own_encryption_must_use_the_key(bucket: str, s3_endpoint: str, tmp_path: Path) -> None:
    warehouse = Warehouse(WarehouseSettings(path=f"s3://{bucket}/wh", uri=f"sqlite:///{tmp_path}/catalog.db"))
    configure(StorageSettings(kms_key=KEY))
    with pytest.raises(
        UserError, match=rf"storage.kms_key: .*expected bucket '{bucket}' to encrypt.*no aws:kms default"
    ):
        warehouse.check_writable()

    def encrypt(key: str) -> None:
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
        boto3.client("s3").put_bucket_encryption(
            Bucket=bucket,
            ServerSideEncryptionConfiguration={"Rules": [rule]},  # type: ignore[typeddict-item, list-item]
        )

    encrypt(KEY.replace("1234abcd", "ffffffff"))
    with pytest.raises(UserError, match=r"it uses arn:aws:kms:.*ffffffff"):
        warehouse.check_writable()
    encrypt(KEY)
    warehouse.check_writable()
    storage.write_bytes(f"s3://{bucket}/x", b"1")
    head = boto3.client("s3").head_object(Bucket=bucket, Key="x")
    assert head["ServerSideEncryption"] == "aws:kms" and head["SSEKMSKeyId"] == KEY
    configure(StorageSettings(kms_key=KEY))
    with pytest.raises(UserError, match=r"expected warehouse.path on s3://, not file://"):
        Warehouse(WarehouseSettings(path=str(tmp_path / "wh"))).check_writable()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(certificate, key) of an authority of its own, which is also the server's certificate."""
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "ca.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", str(pem), "-keyout", str(key)]
    if subprocess.run(made, capture_output=True).returncode:
        pytest.skip("no openssl")
    return pem, key


def test_tls_is_verified_with_the_given_authority(bucket: str, s3_endpoint: str, authority: tuple[Path, Path]) -> None:
    """A server with a certificate of an authority that nobody knows: refused, unless `ca_bundle` names it."""
    import ssl

    from tests.fault_proxy import FaultProxy

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority)
    with FaultProxy(s3_endpoint, tls=context).serving() as proxy:
        assert proxy.endpoint.startswith("https://")
        configure(StorageSettings(endpoint=proxy.endpoint))
        for act in (
            lambda: storage.write_bytes(f"s3://{bucket}/x", b"1"),
            lambda: storage.open_input(f"s3://{bucket}/x"),
        ):
            with pytest.raises(RunError, match=f"bucket '{bucket}': its TLS certificate is not trusted.*ca_bundle"):
                act()
        configure(StorageSettings(endpoint=proxy.endpoint, ca_bundle=str(authority[0])))
        storage.write_bytes(f"s3://{bucket}/x", b"1")
        with storage.open_input(f"s3://{bucket}/x") as stream:
            assert stream.read() == b"1"


def test_the_command_line_obeys_the_section(bucket: str, s3_endpoint: str, tmp_path: Path) -> None:
    """No AWS variable but the keys: `plan` finds the bucket by the file alone, and says what it can't find."""
    job = {
        "name": "shop",
        "warehouse": {"path": f"s3://{bucket}/wh", "uri": f"sqlite:///{tmp_path}/catalog.db"},
        "sources": {"t": {"path": f"s3://{bucket}/t"}},
        "steps": {"s": {"task": "summarize", "input": "t", "text": "b"}},
        "storage": {"endpoint": s3_endpoint, "region": "us-east-1"},
    }
    (tmp_path / "shop.yaml").write_text(json.dumps(job))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    asked = [sys.executable, "-m", "bizllm.cli", "plan", str(tmp_path / "shop.yaml")]
    done = subprocess.run(asked, capture_output=True, text=True, env=clean | keys, timeout=100)
    assert done.returncode == 2 and "no such file or folder" in done.stdout + done.stderr
