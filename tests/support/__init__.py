"""The parts that the fixtures and the tests are made of."""

from __future__ import annotations

import uuid


def unique_code(prefix: str = "CODE") -> str:
    """Return a promo code that no other test uses: tests that share a database share no code."""
    return f"{prefix}-{uuid.uuid4().hex[:12].upper()}"
