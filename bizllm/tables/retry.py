"""Another attempt after a fault of an object store that may pass, a bounded number of times, with jittered waits.

The clients below try each request some times by themselves (`REQUEST_ATTEMPTS`); this is for what they do not try
again: bodies that end early, credentials that expired, an outage that is longer than a second.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from bizllm import logs
from bizllm.errors import StorageUnavailable
from bizllm.tables.refusals import explained

Answer = TypeVar("Answer")

REQUEST_ATTEMPTS = 4  # of one request, by boto3 and by pyarrow
ATTEMPTS = 4  # of one operation of the storage module
UNIT_ATTEMPTS = 3  # of a unit whose streams broke
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 15.0
LONGEST_S = 300.0  # after that long no attempt is begun: a store that does not even refuse takes minutes for each

_log = logs.get(__name__)


def wait(attempt: int) -> None:
    """Before attempt `attempt` + 1: half to the whole of 0.5, 2, 8, 15 s, so that workers do not come all at once."""
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 4 ** (attempt - 1))
    time.sleep(random.uniform(longest / 2, longest))


def retried(call: Callable[[], Answer], url: str, action: str, renew: Callable[[], None]) -> Answer:
    """What `call` gives, asked again where the store's fault may pass. Raises as `explained` does.

    renew: reads credentials anew; called where they had expired.
    """
    began = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with explained(url, action):
                return call()
        except StorageUnavailable as fault:
            if attempt == ATTEMPTS or time.monotonic() - began > LONGEST_S:
                raise
            if fault.stale:
                renew()
            _log.warning("storage_retried", action=action, attempt=attempt, error=str(fault))
            wait(attempt)
    raise AssertionError("unreachable")
