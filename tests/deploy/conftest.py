"""Two instances of the service, nginx before them, and what they sell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from pymongo.database import Database

from promo_service.embedded import HOST
from tests.support.balancer import Balancer
from tests.support.sale import Sale
from tests.support.service import Service

Document = dict[str, Any]


@pytest.fixture(scope="module")
def instances(start_service: Callable[..., Service]) -> Sequence[Service]:
    """Provide two instances of the service, as patient as nginx is with them."""
    patient = {"PROMO_REQUEST_TIMEOUT_MS": "3500"}
    return start_service(environ=patient), start_service(environ=patient)


@pytest.fixture
def balancer(instances: Sequence[Service]) -> Iterator[Balancer]:
    """Provide nginx before both instances."""
    with Balancer([f"{HOST}:{instance.port}" for instance in instances]) as balancer:
        yield balancer


@pytest.fixture
def sale(service_database: Database[Document], instances: Sequence[Service]) -> Sale:
    """Provide a code that never sells out, five times for each user."""
    return Sale.open(service_database, instances, maxUses=1_000_000, maxUsesPerUser=5)
