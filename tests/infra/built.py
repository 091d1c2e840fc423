"""infra/image/Dockerfile carried out without a container engine: each stage is an overlay over a base folder, its RUN
steps run there in a chroot with namespaces of their own.

What an engine does and this does not: pull the base image (another folder stands in for it), make layers, cap memory.
The machine's own way to packages is handed on: PIP_FIND_LINKS as the build argument TORCH_WHEELS, the authorities to
trust, and how names are resolved.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile import ROOT, Stage, filled, pairs, stages

PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
_TRUST = "/etc/ssl/certs/ca-certificates.crt"


ALONE = "10.244.0.7"
_OWN_NETWORK = (
    "ip link set lo up",
    "ip link add pod0 type veth peer name host0",
    f"ip addr add {ALONE}/24 dev pod0",
    "ip link set pod0 up",
    "ip link set host0 up",
    "ip route add default via 10.244.0.1",
)


@dataclass
class Image:
    """What was built. root: of the last stage. said: each step's seconds, by its beginning."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    args: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    workdir: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        command: list[str],
        *,
        read_only: bool = False,
        binds: Mapping[Path, str] | None = None,
        env: Mapping[str, str] | None = None,
        alone: bool = False,
        timeout_s: float = 900.0,
    ) -> subprocess.CompletedProcess[str]:
        """A command as the image's user, with mounts and processes of its own. binds: host's folder → where it is seen.

        read_only: the root can't be written, but for /tmp, /dev/shm, and the image's own /work and /home/ray/.ray,
        which are empty and in memory: what a `--read-only` container with those as tmpfs has. alone: in
        a network of its own that leads nowhere, with the address `ALONE`, as a pod has one.
        """
        return subprocess.run(
            self.command(command, read_only=read_only, binds=binds, env=env, alone=alone),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def command(
        self,
        command: list[str],
        *,
        read_only: bool = False,
        binds: Mapping[Path, str] | None = None,
        env: Mapping[str, str] | None = None,
        alone: bool = False,
    ) -> list[str]:
        """The same as a command line of this machine."""
        owner = f"uid={self.user.split(':')[0]},gid={self.user.split(':')[1]}"
        script = [
            "set -e",
            *(_OWN_NETWORK if alone else []),
            f"cd {shlex.quote(str(self.root))}",
            "mount --make-rprivate /",
            "mount --bind . .",
        ]
        script += [f"cd {shlex.quote(str(self.root))}"]  # into the mount, not what lies under it
        script += ["mount -t proc proc proc", "mount --rbind /dev dev", "mount -t tmpfs -o mode=1777 tmpfs dev/shm"]
        if read_only:
            script += ["mount -o remount,bind,ro .", "mount -t tmpfs -o mode=1777 tmpfs tmp"]
            script += [f"mount -t tmpfs -o mode=755,{owner} tmpfs {place}" for place in ("work", "home/ray/.ray")]
        for source, target in (binds or {}).items():
            script += [f"mkdir -p .{target}"] if read_only and target.startswith("/work/") else []
            script += [f"mount --bind {shlex.quote(str(source))} .{target}"]
        inside = f"cd {shlex.quote(self.workdir)} && exec {shlex.join(command)}"
        environment = [f"{key}={value}" for key, value in {"HOME": self._home, **self.env, **(env or {})}.items()]
        script += [
            shlex.join(
                ["exec", "env", "-i", *environment, "chroot", f"--userspec={self.user}", ".", "/bin/sh", "-c", inside]
            )
        ]
        apart = ["--mount", "--pid", "--ipc", *(["--net"] if alone else []), "--fork", "--kill-child"]
        return ["unshare", *apart, "sh", "-c", "\n".join(script)]

    @property
    def _home(self) -> str:
        return "/root" if self.user.startswith("0") else "/home/ray"


@contextmanager
def built(base: Path, work: Path, args: Mapping[str, str], cache: Path, quick: bool = False) -> Iterator[Image]:
    """The image on a base folder, which stays as it is. work: an empty folder, best in memory.

    cache: what `--mount=type=cache` keeps between builds. quick: libraries are linked to the cache, not copied, and not
    compiled.
    """
    with ExitStack() as mounted:
        done: dict[str, Image] = {}
        for stage in stages():
            root = mounted.enter_context(_overlay(base, work / stage.name))
            _hand_on(root)
            image = Image(root, args=dict(args))
            if quick:
                _without_people(root)
                (root / "root").chmod(0o755)  # the links lead there
                image.env |= {"UV_LINK_MODE": "symlink", "UV_COMPILE_BYTECODE": "0"}
            _carry_out(stage, image, done, cache, quick)
            done[stage.name] = image
        yield list(done.values())[-1]


def _carry_out(stage: Stage, image: Image, done: dict[str, Image], cache: Path, quick: bool) -> None:
    for name, text in stage.steps:
        match name:
            case "ARG":
                key, _, default = text.partition("=")
                image.args.setdefault(key, default.strip('"'))
            case "ENV":
                values = {**image.args, **image.env}
                said = {key: filled(value, values) for key, value in pairs(text)}
                image.env |= {
                    key: value for key, value in said.items() if not (quick and key in image.env and "UV" in key)
                }
            case "WORKDIR":
                image.workdir = filled(text, image.env)
                (image.root / image.workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "USER":
                image.user = text
            case "LABEL":
                image.labels |= {key: filled(value, image.args) for key, value in pairs(text)}
            case "ENTRYPOINT":
                image.entrypoint = _list(text)
            case "HEALTHCHECK":
                image.healthcheck = _list(text.partition("CMD ")[2])
            case "CMD":
                pass
            case "COPY":
                _copy(text, image, done)
            case "RUN":
                _run(text, image, cache)
            case _:
                raise AssertionError(f"{name} is not carried out here")


def _run(text: str, image: Image, cache: Path) -> None:
    binds: dict[Path, str] = {}
    while text.startswith("--mount="):
        mount, _, text = text.partition(" ")
        said = dict(part.split("=", 1) for part in mount.removeprefix("--mount=").split(","))
        assert said["type"] == "cache", mount
        binds[cache] = said["target"]
        (image.root / said["target"].lstrip("/")).mkdir(parents=True, exist_ok=True)
        text = text.lstrip()
    wheels = image.args.get("TORCH_WHEELS", "")
    if wheels.startswith("/"):
        binds[Path(wheels)] = wheels
        (image.root / wheels.lstrip("/")).mkdir(parents=True, exist_ok=True)
    # The stand-in's Python may be Debian's, which lets pip write nothing of its own accord.
    env = {**image.args, "PIP_BREAK_SYSTEM_PACKAGES": "1", "SSL_CERT_FILE": _TRUST, "PIP_CERT": _TRUST}
    done = image.run(["/bin/sh", "-c", text], binds=binds, env=env)
    assert done.returncode == 0, f"RUN {text[:200]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def _copy(text: str, image: Image, done: dict[str, Image]) -> None:
    *sources, target = text.split()
    origin = ROOT
    if sources[0].startswith("--from="):
        origin = done[sources.pop(0).removeprefix("--from=")].root
    place = image.root / (Path(image.workdir) / target).as_posix().lstrip("/")
    for source in sources:
        path = origin / source.lstrip("/")
        if path.is_dir() and origin != ROOT:
            place.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", path, place], check=True)  # ten times as fast as shutil
        elif path.is_dir():
            shutil.copytree(path, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place.mkdir(parents=True, exist_ok=True) if target.endswith("/") else None
            shutil.copy2(path, place)


def _list(text: str) -> list[str]:
    said: list[str] = json.loads(text)
    return said


def _hand_on(root: Path) -> None:
    for file in ("/etc/resolv.conf", "/etc/hosts", _TRUST):
        target = root / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a link may lead out of the root
        target.write_bytes(Path(file).read_bytes())


def _without_people(root: Path) -> None:
    """A machine that lends its own root may have users and groups that a bare image has not."""
    for name in ("passwd", "group"):
        file = root / "etc" / name
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if line.split(":")[2] != "1000"))


@contextmanager
def _overlay(base: Path, folder: Path) -> Iterator[Path]:
    upper, work, root = (folder / name for name in ("upper", "work", "root"))
    for place in (upper, work, root):
        place.mkdir(parents=True)
    options = f"lowerdir={base},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(root)], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", str(root)], check=False)


def clean_base(folder: Path) -> Path:
    """Debian 12 with its Python 3.11, installed anew into a folder: what stands in for python:3.11-slim-bookworm."""
    if not (folder / "etc/debian_version").exists():
        packages = "python3,python3-venv,python3-pip,ca-certificates"
        command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={packages}", "bookworm", str(folder)]
        if shutil.which("mmdebstrap") is None:
            raise FileNotFoundError("mmdebstrap: apt-get install mmdebstrap")
        subprocess.run(command, check=True, env={**os.environ, "LC_ALL": "C"})
        (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    return folder
