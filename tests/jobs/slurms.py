"""A Slurm cluster of two nodes on one machine: each slurmd has a network, a name and a local disk of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from networks import VENV_BIN, Machine, ip, need_namespaces

NAMES = ("n1", "n2")
NETWORK = "10.213.8"
SCRIPT = Path(__file__).parents[2] / "cluster/slurm/bizllm.sbatch"
LOCAL_DISK = "/mnt"  # a tmpfs that each node mounts for itself

CONF = """
ClusterName=bizllm
SlurmctldHost=n1({network}.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={state}/munge.socket
CredType=cred/munge
StateSaveLocation={state}/ctld
SlurmctldPidFile={state}/ctld.pid
SlurmctldLogFile={state}/ctld.log
SlurmdSpoolDir={state}/spool-%n
SlurmdPidFile={state}/%n.pid
SlurmdLogFile={state}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
GresTypes=gpu
NodeName=n1 NodeAddr={network}.1 CPUs=1 RealMemory=4000 Gres=gpu:1
NodeName=n2 NodeAddr={network}.2 CPUs=1 RealMemory=4000 Gres=gpu:1
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
"""


def need_slurm() -> None:
    """Skip where Slurm or namespaces are missing."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged") if shutil.which(name, path=_PATH) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurm-wlm munge")
    need_namespaces()


_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Slurm:
    """The cluster, as one who logs in on its first node has it."""

    def __init__(self, state: Path, machines: list[Machine], daemons: dict[str, int]) -> None:
        self.state, self.machines, self.daemons = state, machines, daemons

    def command(self, *words: str) -> str:
        """What a command of Slurm says on the first node."""
        inside = ["ip", "netns", "exec", self.machines[0].name, *words]
        done = subprocess.run(inside, env=self.machines[0].env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def submit(self, folder: Path, *command: str, flags: tuple[str, ...] = (), **env: str) -> str:
        """The id of a job of two nodes with one CPU each; its output lies in `folder`."""
        asked = ["--parsable", "--cpus-per-task=1", "--mem=2500M", f"--chdir={folder}", f"--output={folder}/%j.log"]
        given = [f"{name}={value}" for name, value in env.items()]
        return self.command("env", *given, "sbatch", *asked, *flags, str(SCRIPT), *command).strip()

    def state_of(self, job: str) -> tuple[str, str]:
        """(JobState, ExitCode as status:signal)."""
        told = self.command("scontrol", "--oneliner", "show", "job", job)
        found = re.search(r"JobState=(\S+).* ExitCode=(\S+)", told)
        assert found is not None, told
        return found[1], found[2]

    def ended(self, job: str, within_s: float = 240.0) -> tuple[str, str]:
        """Its state once it is over and its nodes are free again."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            queued = self.command("squeue", "--noheader", "--job", job, "--states=all", "--format=%T").split()
            if queued and queued[0] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
                return self.state_of(job)
            time.sleep(0.3)
        raise AssertionError((self.state_of(job), self.log(job)))

    def log(self, job: str) -> str:
        """Everything that the daemons wrote of late."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.state.glob("*.log")))

    def processes(self) -> list[str]:
        """Those of jobs."""
        own = set(self.daemons.values())
        found = []
        for machine in self.machines:
            found += [said for pid, said in machine.processes().items() if pid not in own and "slurm" not in said]
        return found

    def left(self) -> list[str]:
        """Processes of jobs, and files on the nodes' own disks."""
        found = self.processes()
        for name in NAMES:
            found += [str(path) for path in Path(f"/proc/{self.daemons[name]}/root{LOCAL_DISK}").iterdir()]
        return found


@contextmanager
def slurm_cluster() -> Iterator[Slurm]:
    """Two nodes that are idle, and a controller on the first."""
    need_slurm()
    state = Path(tempfile.mkdtemp(prefix="slurm"))
    for name in ("ctld", "spool-n1", "spool-n2"):
        (state / name).mkdir()
    (state / "slurm.conf").write_text(CONF.format(state=state, network=NETWORK))
    (state / "gres.conf").write_text("NodeName=n[1-2] Name=gpu File=/dev/zero\n")  # a device that every machine has
    (state / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (state / "munge.key").write_bytes(os.urandom(64))
    (state / "munge.key").chmod(0o600)
    hosts = "127.0.0.1 localhost\n" + "".join(f"{NETWORK}.{i} {name}\n" for i, name in enumerate(NAMES, start=1))
    (state / "hosts").write_text(hosts)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_", "AWS_"))}
    env = outside | {
        "PATH": f"{VENV_BIN}{os.pathsep}{_PATH}",
        "SLURM_CONF": str(state / "slurm.conf"),
        "TMPDIR": LOCAL_DISK,
    }
    machines: list[Machine] = []
    started: list[subprocess.Popen[str]] = []
    try:
        for number, name in enumerate(NAMES, start=1):
            namespace = f"bizllm-{os.getpid()}-{name}"
            ip("netns", "add", namespace)
            machines.append(Machine(namespace, f"{NETWORK}.{number}", env, state / f"{name}.out"))
        names = [machine.name for machine in machines]
        ip("link", "add", "wire", "netns", names[0], "type", "veth", "peer", "name", "wire", "netns", names[1])
        for machine in machines:
            ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", "wire")
            for device in ("lo", "wire"):
                ip("-n", machine.name, "link", "set", device, "up")
            hosts_of = Path("/etc/netns") / machine.name  # `ip netns exec` lays it over /etc
            hosts_of.mkdir(parents=True)
            shutil.copy(state / "hosts", hosts_of / "hosts")
        daemons: dict[str, int] = {}

        def start(name: str, machine: Machine, *command: str) -> None:
            with (state / f"{name}.out").open("wb") as out:
                started.append(machine.start(*command, stdout=out, stderr=subprocess.STDOUT))
            daemons[name] = started[-1].pid

        munge = ["--foreground", "--force", f"--key-file={state}/munge.key", f"--socket={state}/munge.socket"]
        munge += [f"--pid-file={state}/munge.pid", f"--log-file={state}/munge.log", f"--seed-file={state}/munge.seed"]
        start("munge", machines[0], "munged", *munge)
        controller = f'hostname {NAMES[0]} && exec slurmctld -D -c -f "$SLURM_CONF"'
        start("ctld", machines[0], "unshare", "--uts", "sh", "-c", controller)
        for name, machine in zip(NAMES, machines, strict=True):
            own = f'hostname {name} && mount -t tmpfs tmpfs {LOCAL_DISK} && exec slurmd -D -f "$SLURM_CONF"'
            start(name, machine, "unshare", "--uts", "--mount", "sh", "-c", own)
        slurm = Slurm(state, machines, daemons)
        deadline = time.monotonic() + 60
        while True:
            assert all(daemon.poll() is None for daemon in started), slurm.log("")
            try:
                idle = slurm.command("sinfo", "--noheader", "--Node", "--format=%t").split() == ["idle", "idle"]
            except AssertionError:
                idle = False  # the controller does not answer yet
            if idle:
                break
            assert time.monotonic() < deadline, slurm.log("")
            time.sleep(0.3)
        yield slurm
    finally:
        for machine in machines:
            machine.kill()
            subprocess.run(["ip", "netns", "delete", machine.name], check=False)
            shutil.rmtree(Path("/etc/netns") / machine.name, ignore_errors=True)
        for daemon in started:
            daemon.wait(10)
        shutil.rmtree(state, ignore_errors=True)
