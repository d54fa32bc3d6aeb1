"""A check for schemathesis: what the description allows is read, and refused only by a rule.

It stands in for `positive_data_acceptance`, which knows the status only: a 400 is also how the
contract says that a code has expired, or that the amount is too small.
"""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis.core.failures import Failure

from promo_service.openapi import REJECTIONS

# No schema can compare two fields.
BEYOND_SCHEMAS = "validUntil: must not be before validFrom"


@schemathesis.check
def positive_data_is_read(
    _context: schemathesis.CheckContext,
    response: schemathesis.Response,
    case: schemathesis.Case[Any],
) -> None:
    """Fail when a request that the description allows is called unreadable."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if response.status_code != 400:
        return
    answer = response.json()
    if answer["code"] not in REJECTIONS and answer["error"] != BEYOND_SCHEMAS:
        raise Failure(
            operation=case.operation.label,
            title="A request that the description allows was not read",
            message=response.text,
        )
