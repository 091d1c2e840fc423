"""Spot machines of EC2, and the same on demand where EC2 refuses spot: cluster/aws/cluster.yaml names the class.

Ray's autoscaler (2.60, v2) ranks a kind of machine lower for a while only once one that it was given did not come up
(`CloudResourceMonitor.notify` hears of ALLOCATION_TIMEOUT alone). What EC2 refuses at once is ALLOCATION_FAILED, which
it forgets: it asks for spot again every few seconds and never for another kind. So the refusal is answered here, within
the same request. The machines count as the kind that was asked for: `max_workers` binds as ever, and they go when idle.
Nothing is remembered: each request asks for spot first, and a restart of the head changes nothing.
"""

from __future__ import annotations

import logging
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

# EC2's words for "not as spot, not now". Ray tries each subnet and tells the last one's: a zone may not know the type.
NO_SPOT = frozenset(
    {
        "InsufficientInstanceCapacity",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
        "Unsupported",
    }
)

_log = logging.getLogger(__name__)  # the autoscaler writes every logger's lines into its monitor.log


def _worth_reading(line: logging.LogRecord) -> bool:
    """Not two lines every five seconds on what Ray itself puts into the settings of every provider but its own."""
    return "legacy field" not in line.getMessage()


logging.getLogger("ray.autoscaler._private.util").addFilter(_worth_reading)


class SpotOrOnDemand(AWSNodeProvider):
    """Ray's own provider for EC2, but for spot machines that EC2 does not give."""

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Start up to `count` machines: id → machine. Raises NodeLaunchException where EC2 gives none at all."""
        if node_config.get("InstanceMarketOptions", {}).get("MarketType") != "spot":
            return dict(super().create_node(node_config, tags, count))
        kind = tags.get(TAG_RAY_USER_NODE_TYPE, "spot")
        started: dict[str, Any] = {}
        refused = "fewer than asked for"  # of several machines EC2 may start some
        try:
            started |= super().create_node(node_config, tags, count)
        except NodeLaunchException as fault:
            if fault.category not in NO_SPOT:
                raise
            refused = fault.category
        if missing := count - len(started):
            _log.warning(
                "EC2 has no spot machine for %d of %d %s (%s): on demand instead", missing, count, kind, refused
            )
            same = {name: value for name, value in node_config.items() if name != "InstanceMarketOptions"}
            try:
                started |= super().create_node(same, tags, missing)
            except NodeLaunchException as fault:
                if not started:
                    raise
                _log.warning("EC2 has none on demand either for %d of %d %s (%s)", missing, count, kind, fault.category)
        return started
