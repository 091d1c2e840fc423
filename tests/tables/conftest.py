"""A warehouse of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from bizllm.tables.warehouse import Warehouse
from tests.tables.nights import opened


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return opened(tmp_path / "数据 warehouse")
