"""Why an order needs a person."""

from __future__ import annotations

# In the order in which they are told.
REASONS = (
    "no_items",
    "other_request",
    "unread_count",
    "unknown_item",
    "ambiguous_item",
    "item_twice",
    "quantity_missing",
    "quantity_odd",
    "unit_differs",
    "currency",
    "price_differs",
    "amount_differs",
    "total_differs",
    "duplicate",
    "number_again",
)


def in_order(reasons: set[str]) -> tuple[str, ...]:
    """The reasons as they are told."""
    return tuple(reason for reason in REASONS if reason in reasons)
