"""The shop's job, as tests/jobs has it, and the folder of these tests' own modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # stacks lies beside the tests

_spec = importlib.util.spec_from_file_location("shop_job", Path(__file__).parents[1] / "jobs" / "conftest.py")
assert _spec is not None and _spec.loader is not None
_shop = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shop)
job, shop_in = _shop.job, _shop.shop_in
