"""The folder of these tests' own modules."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # kustomize, policies and ray_fields lie beside the tests
