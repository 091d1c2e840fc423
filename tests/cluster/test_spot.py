"""cluster/aws where EC2 has no spot machines: what Ray's autoscaler starts, from the file that it reads on the head.

EC2 is moto's; refusals are put in where botocore hands on EC2's answers. Only the head's GCS is made up: it says which
machines have joined, and how many are wanted.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
from launcher import cluster_file, filled
from ray.autoscaler._private.aws import utils as aws_utils
from ray.autoscaler._private.commands import _set_up_config_for_head_node
from ray.autoscaler._private.providers import _clear_provider_cache, _get_node_provider
from ray.autoscaler.tags import NODE_KIND_HEAD, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE
from ray.autoscaler.v2.autoscaler import Autoscaler
from ray.autoscaler.v2.instance_manager.config import FileConfigReader
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GetClusterResourceStateReply, NodeStatus

Config = dict[str, Any]


class Gcs:
    """What the head knows: every machine that EC2 runs has joined, and `wanted` tasks of 8 CPUs wait."""

    address = "127.0.0.1:6379"

    def __init__(self, ec2: Any) -> None:
        self.ec2, self.wanted, self.asked = ec2, 0, 0

    def get_cluster_resource_state(self) -> bytes:
        reply = GetClusterResourceStateReply()
        state = reply.cluster_resource_state
        self.asked += 1
        state.cluster_resource_state_version = self.asked
        for machine in running(self.ec2):
            cpus = {"node:__internal_head__": 1.0} if machine["kind"] == "head" else {"CPU": 8.0}
            state.node_states.add(
                node_id=machine["id"].encode().ljust(28, b"\0"),
                instance_id=machine["id"],
                ray_node_type_name=machine["kind"],
                total_resources=cpus,
                available_resources=cpus,
                status=NodeStatus.RUNNING,
            )
        if self.wanted:
            requests = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make({"CPU": 8.0})] * self.wanted)
            state.pending_resource_requests.extend(requests)
        return reply.SerializeToString()


def running(ec2: Any) -> list[dict[str, str]]:
    """id, kind and market of each machine."""
    found = []
    up = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    for reservation in ec2.describe_instances(Filters=up)["Reservations"]:
        for machine in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
            market = machine.get("InstanceLifecycle", "on demand")
            found.append({"id": machine["InstanceId"], "kind": tags[TAG_RAY_USER_NODE_TYPE], "market": market})
    return found


class Market:
    """What EC2 has left: spot machines for each request (None: plenty), and whether any on demand."""

    def __init__(self, provider: Any) -> None:
        self.spot: int | None = None
        self.on_demand = True
        self.code = "InsufficientInstanceCapacity"
        provider.ec2_fail_fast.meta.client.meta.events.register("before-call.ec2.RunInstances", self.answer)

    def answer(self, params: Any, **_: Any) -> Any:
        """A refusal in EC2's place, as botocore hands it on; None: EC2's own answer, to perhaps fewer machines."""
        asked = params["body"]
        spot = asked.get("InstanceMarketOptions.MarketType") == "spot"
        if self.spot == 0 if spot else not self.on_demand:
            return SimpleNamespace(status_code=500), {"Error": {"Code": self.code, "Message": "Not now."}}
        asked["MinCount"] = (
            min(self.spot, asked["MaxCount"]) if spot and self.spot else asked["MaxCount"]
        )  # moto's count
        return None


class Cluster:
    """The head of cluster/aws with Ray's autoscaler. Nothing is installed on machines; they join as they are."""

    def __init__(self, made: Config, ec2: Any) -> None:
        self.ec2, self.gcs = ec2, Gcs(ec2)
        made["provider"]["disable_node_updaters"] = True  # no ssh
        provider = _get_node_provider(made["provider"], made["cluster_name"], use_cache=False)
        head = made["available_node_types"]["head"]["node_config"]
        provider.create_node(head, {TAG_RAY_NODE_KIND: NODE_KIND_HEAD, TAG_RAY_USER_NODE_TYPE: "head"}, 1)
        _, self.file = _set_up_config_for_head_node(made, provider, no_restart=False)
        self.autoscaler = Autoscaler("session", FileConfigReader(self.file.name), self.gcs)
        self.market = Market(self.autoscaler._cloud_instance_provider.v1_provider)

    def after(self, wanted: int, updates: int = 5) -> Counter[tuple[str, str]]:
        """(kind, market) of the workers some updates later; Ray makes one every five seconds."""
        self.gcs.wanted = wanted
        adapter = self.autoscaler._cloud_instance_provider
        for _ in range(updates):
            assert self.autoscaler.update_autoscaling_state() is not None, "the log has why"
            for pool in (adapter._main_executor, adapter._node_launcher_executors):
                done(pool)
            assert len(running(self.ec2)) <= 1 + 12, "never more than max_workers and the head"
        return Counter((at["kind"], at["market"]) for at in running(self.ec2) if at["kind"] != "head")


def done(pool: ThreadPoolExecutor) -> None:
    """Once all that was given to the pool is done: each of its threads comes to the barrier only then."""
    meeting = Barrier(pool._max_workers + 1)
    for _ in range(pool._max_workers):
        pool.submit(meeting.wait, 30)
    meeting.wait(30)


@pytest.fixture(scope="module")
def launched(ec2: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """What `ray up` makes of the file, and a home folder with the key that is in it."""
    home = tmp_path_factory.mktemp("home")
    return filled(cluster_file(), home), home


@pytest.fixture
def start(ec2: Any, launched: tuple[Config, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cluster]]:
    """A new cluster, with another `provider` if given."""
    made, home = launched
    monkeypatch.setenv("HOME", str(home))
    for cached in (aws_utils.resource_cache, aws_utils.client_cache):
        cached.cache_clear()  # with the refusals of another test
    _clear_provider_cache()

    def begin(**provider: str) -> Cluster:
        config = copy.deepcopy(made)
        config["provider"] |= provider
        return Cluster(config, ec2)

    yield begin
    if left := [machine["id"] for machine in running(ec2)]:
        ec2.terminate_instances(InstanceIds=left)


FLOOR = {("worker", "on demand"): 2}


def test_spot_is_taken_where_there_is_some(start: Callable[..., Cluster]) -> None:
    assert start().after(6) == FLOOR | {("worker-spot", "spot"): 4}


def test_refused_spot_comes_on_demand_and_as_spot_again_later(
    start: Callable[..., Cluster], caplog: pytest.LogCaptureFixture
) -> None:
    cluster = start()
    cluster.market.spot = 0
    assert cluster.after(6) == FLOOR | {("worker-spot", "on demand"): 4}
    said = [text for text in caplog.messages if text.startswith("EC2 has no spot")]
    assert "EC2 has no spot machine for 2 of 2 worker-spot (InsufficientInstanceCapacity): on demand instead" in said
    assert len(said) == 3, "once for each request: Ray asks for 1, 1 and 2"
    cluster.market.spot = None
    assert cluster.after(8) == FLOOR | {("worker-spot", "on demand"): 4, ("worker-spot", "spot"): 2}
    lost = [at["id"] for at in running(cluster.ec2) if at["kind"] == "worker-spot"]
    cluster.ec2.terminate_instances(InstanceIds=lost)
    assert cluster.after(8) == FLOOR | {("worker-spot", "spot"): 6}


@pytest.mark.parametrize(
    "code", ["MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow", "UnfulfillableCapacity", "Unsupported"]
)
def test_ec2_says_it_in_other_words_too(start: Callable[..., Cluster], code: str) -> None:
    cluster = start()
    cluster.market.spot, cluster.market.code = 0, code
    assert cluster.after(3, updates=2) == FLOOR | {("worker-spot", "on demand"): 1}


def test_more_is_never_started_than_may_be(start: Callable[..., Cluster]) -> None:
    cluster = start()
    cluster.market.spot = 0
    assert cluster.after(40, updates=8) == {("worker", "on demand"): 4, ("worker-spot", "on demand"): 8}


def test_what_spot_lacks_of_a_request_comes_on_demand(start: Callable[..., Cluster]) -> None:
    cluster = start()
    cluster.market.spot = 1
    assert cluster.after(6) == FLOOR | {("worker-spot", "spot"): 3, ("worker-spot", "on demand"): 1}, "1, 1, and 1 of 2"


def test_neither_spot_nor_on_demand(start: Callable[..., Cluster], caplog: pytest.LogCaptureFixture) -> None:
    """Some spot machines are kept where the rest is refused; none at all is a refusal, and asked again."""
    cluster = start()
    assert cluster.after(2) == FLOOR
    cluster.market.spot, cluster.market.on_demand = 0, False
    assert cluster.after(6) == FLOOR
    assert "Failed to launch 1 nodes of type worker-spot" in caplog.text
    cluster.market.spot = 1
    assert cluster.after(6) == FLOOR | {("worker-spot", "spot"): 3}
    assert "EC2 has none on demand either for 1 of 2 worker-spot (InsufficientInstanceCapacity)" in caplog.messages


def test_other_refusals_stay_refusals(start: Callable[..., Cluster], caplog: pytest.LogCaptureFixture) -> None:
    """What is wrong with the account or the file is told, not paid for."""
    cluster = start()
    cluster.market.spot, cluster.market.code = 0, "AuthFailure.ServiceLinkedRoleCreationNotPermitted"
    assert cluster.after(6) == FLOOR
    assert "(AuthFailure.ServiceLinkedRoleCreationNotPermitted)" in caplog.text


def test_rays_own_provider_stays_without(start: Callable[..., Cluster]) -> None:
    """Why cluster.yaml names another. Once this fails, Ray does it by itself, and ours can go."""
    cluster = start(type="aws")
    cluster.market.spot = 0
    assert cluster.after(6, updates=8) == FLOOR
