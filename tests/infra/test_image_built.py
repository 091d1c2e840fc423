"""infra/image/Dockerfile carried out (see built.py), quickly in each test run and whole in `make test-image`."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from built import ALONE, Image, built, clean_base
from dockerfile import FOLDER, ROOT

NIGHT = "2026-03-10"
VERSIONS = (
    "import json, importlib.metadata as m; "
    "print(json.dumps({d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}))"
)


@pytest.fixture(scope="module")
def cache() -> Path:
    """uv's own, which `make setup` has filled."""
    if os.geteuid() != 0:
        pytest.skip("needs root: overlays and chroot")
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("needs make setup")
    return Path(subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip())


@contextmanager
def carried_out(base: Path, cache: Path, quick: bool = False) -> Iterator[Image]:
    """The image, with this machine's way to torch's wheels."""
    work = Path(tempfile.mkdtemp(prefix="bizllm-image-"))
    if quick:  # an overlay over the root must lie on another file system, and links fit into memory
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", work], check=True)
    try:
        with built(base, work, {"TORCH_WHEELS": os.environ.get("PIP_FIND_LINKS", "")}, cache, quick) as image:
            yield image
    finally:
        if quick:
            subprocess.run(["umount", "--lazy", work], check=False)
        shutil.rmtree(work, ignore_errors=True)


def hadolint() -> Path | None:
    """Where `make build/hadolint` put it, or the machine's own."""
    built_one = ROOT / "build/hadolint/bin/hadolint"
    found = shutil.which("hadolint")
    return built_one if built_one.exists() else Path(found) if found else None


def test_hadolint_has_nothing_to_say() -> None:
    tool = hadolint()
    if tool is None:
        if os.environ.get("BIZLLM_REQUIRE_HADOLINT"):
            pytest.fail("hadolint is not installed: make build/hadolint")
        pytest.skip("needs hadolint: make build/hadolint")
    done = subprocess.run([tool, "--no-color", FOLDER / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    worse = (FOLDER / "Dockerfile").read_text().replace("USER 1000:1000", "USER root")
    said = subprocess.run([tool, "--no-color", "-"], input=worse, capture_output=True, text=True, timeout=60)
    assert "DL3002" in said.stdout, "it does look"


def test_the_steps_run_on_a_copy_of_this_machines_root(cache: Path) -> None:
    """Not clean, but the same steps, apt's and uv's included: libraries are links into the cache of `make setup`."""
    release = Path("/etc/os-release").read_text()
    if "VERSION_CODENAME=bookworm" not in release or not (cache / "archive-v0").is_dir():
        pytest.skip("needs Debian 12 and uv's cache")
    with carried_out(Path("/"), cache, quick=True) as image:
        seen = {cache: "/root/.cache/uv"}
        for command, answer in (
            (["bizllm", "--version"], "bizllm 0.1.0"),
            (["id", "-u"], "1000"),
            (["python", "-c", "import bizllm.cli, ray, torch; print(ray.__version__)"], "2.60.0"),
            (
                ["sh", "-c", "touch /opt/x || touch /home/ray/x || touch /work/x /tmp/x && echo there only"],
                "there only",
            ),
            (image.healthcheck, ""),
        ):
            done = image.run([*image.entrypoint, *command], read_only=True, binds=seen, timeout_s=120)
            assert (done.returncode, done.stdout.strip()) == (0, answer), done.stderr
        assert image.labels["org.opencontainers.image.version"] == "0.1.0-cpu"


# -- whole --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(cache: Path) -> Iterator[Image]:
    """Built on a Debian that was installed a moment ago."""
    base = Path(os.environ.get("BIZLLM_IMAGE_BASE") or tempfile.mkdtemp(prefix="bizllm-base-"))
    try:
        with carried_out(clean_base(base), cache) as made:
            yield made
    finally:
        if not os.environ.get("BIZLLM_IMAGE_BASE"):
            shutil.rmtree(base, ignore_errors=True)


@pytest.mark.image
@pytest.mark.timeout(1800)
def test_libraries_are_those_of_the_lock_and_no_tool_of_tests_is_there(
    image: Image, record_property: Callable[[str, object], None]
) -> None:
    done = image.run(["python", "-c", VERSIONS], read_only=True)
    held: dict[str, str] = json.loads(done.stdout)
    pins = re.findall(
        r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", (ROOT / "requirements/cpu.lock").read_text(), re.M
    )
    locked = {name.lower().replace("_", "-").replace(".", "-"): version for name, version in pins}
    wrong = {
        name: version
        for name, version in held.items()
        if name not in ("bizllm", "uv") and locked.get(name.replace(".", "-")) != version
    }
    assert not wrong and len(held) > 150
    assert not {"pytest", "moto", "mypy", "ruff", "hypothesis"} & held.keys()
    left = [path for name in ("test", "tests") for path in (image.root / "opt/bizllm/lib").rglob(name) if path.is_dir()]
    assert not left
    size = subprocess.run(["du", "-sm", image.root / "opt/bizllm"], capture_output=True, text=True).stdout.split()[0]
    record_property("megabytes", int(size))
    assert int(size) < 3_400, "it grew: is something new in it that nobody needs?"


@pytest.mark.image
@pytest.mark.timeout(1800)
def test_a_night_as_user_1000_with_a_read_only_root(image: Image, shop_folder: Path) -> None:
    run = ["bizllm", "run", "/work/shop/shop.yaml", "--date", NIGHT, "--json"]
    done = image.run([*image.entrypoint, *run], read_only=True, binds={shop_folder: "/work/shop"}, alone=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert {step["step"]: step["state"] for step in said["steps"]} == {"summary": "done", "segments": "done"}
    assert all(file.stat().st_uid == 1000 for file in (shop_folder / "wh").rglob("*"))


@pytest.fixture
def shop_folder(shop_in: Callable[[Path], Callable[..., str]]) -> Iterator[Path]:
    """The shop's job and data, the container user's own."""
    folder = Path(tempfile.mkdtemp(prefix="bizllm-shop-"))
    warehouse = {"path": "/work/shop/wh"}  # as the container sees it
    shop_in(folder)(warehouse=warehouse, runtime={"num_cpus": 2, "object_store_mb": 200})
    for place in (folder, *folder.rglob("*")):
        os.chown(place, 1000, 1000)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.image
@pytest.mark.timeout(1800)
def test_the_health_check_tells_a_node_that_is_well_from_one_that_hangs(image: Image) -> None:
    check = " ".join(f"'{part}'" if " " not in part else '"$CHECK"' for part in image.healthcheck)
    script = f"""
    {check} && echo "no node: nothing to ask"
    ray get-auth-token --generate >/dev/null
    ray start --head --num-cpus 1 --object-store-memory 100000000 --include-dashboard=false --block >/tmp/ray.log 2>&1 &
    for _ in $(seq 90); do pgrep -x raylet >/dev/null && {check} 2>/dev/null && echo well && break; sleep 1; done
    kill -STOP $(pgrep -x raylet)
    for _ in $(seq 90); do {check} 2>/dev/null || {{ echo hangs; break; }}; sleep 1; done
    """
    done = image.run(
        ["bash", "-c", script], read_only=True, alone=True, env={"CHECK": image.healthcheck[-1]}, timeout_s=200
    )
    assert done.stdout.splitlines() == ["no node: nothing to ask", "well", "hangs"], done.stdout + done.stderr


@pytest.mark.image
@pytest.mark.timeout(1800)
def test_a_head_takes_the_night_that_is_sent_to_it(
    image: Image, shop_folder: Path, record_property: Callable[[str, object], None]
) -> None:
    """As KubeRay starts it, but with CPUs, since there is no worker; asked over its address."""
    said = yaml.safe_load((ROOT / "cluster/kuberay/base/machines.yaml").read_text())["spec"]["headGroupSpec"]
    flags = said["rayStartParams"] | {"num-cpus": "2", "object-store-memory": "100000000"}
    words = [f"--{key}" if value == "true" else f"--{key}={value}" for key, value in flags.items()]
    start = ["ray", "start", "--head", "--block", "--dashboard-agent-listen-port=52365", *words]
    (container,) = said["template"]["spec"]["containers"]
    asked = [container[probe]["httpGet"] for probe in ("readinessProbe", "livenessProbe")]
    urls = [f"http://{ALONE}:{probe['port']}{probe['path']}" for probe in asked] + [f"http://{ALONE}:8265/api/jobs/"]
    status = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).status)"
    script = f"""
    {shlex.join(start)} >/tmp/ray.log 2>&1 &
    for _ in $(seq 180); do python -c {shlex.quote(status)} {urls[0]} >/tmp/ready 2>/dev/null && break; sleep 1; done
    echo "$SECONDS"
    for url in {" ".join(urls)}; do python -c {shlex.quote(status)} $url 2>&1 | tail -1; done
    bizllm submit /work/shop/shop.yaml --date {NIGHT} --address http://{ALONE}:8265 --wait --json
    echo "status $?"
    kill %1; wait %1
    tail -n 5 /tmp/ray.log /tmp/ray/session_latest/logs/ray_client_server.* >&2
    """
    done = image.run(
        [*image.entrypoint, "bash", "-c", script],
        read_only=True,
        binds={shop_folder: "/work/shop"},
        env={"RAY_AUTH_TOKEN": "a-token-of-the-test-and-nobody-else-0123456789"},
        alone=True,
    )
    seconds, ready, alive, unasked, *answer, ended = done.stdout.splitlines()
    assert (ready, alive) == ("200", "200"), done.stderr
    assert "401" in unasked, "the Jobs API asks for the token"
    assert ended == "status 0", done.stdout + done.stderr
    night = json.loads("\n".join(answer))
    assert (night["verb"], night["state"]) == ("run", "done")
    assert list((shop_folder / "wh").rglob("*.parquet"))
    record_property("seconds_to_ready", int(seconds))
