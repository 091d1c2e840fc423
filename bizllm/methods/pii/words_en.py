"""Words in Latin script that names and places are told by: the project's own lists, written down for it."""

from __future__ import annotations

from bizllm.methods.pii.lists import listed

FIRST_NAMES = frozenset(listed("first_names_en"))
COMMON = frozenset(listed("common_en"))
PLACES = frozenset(listed("places_en", ","))
