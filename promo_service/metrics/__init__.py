"""What the service counts and measures, and how Prometheus gets it."""

from __future__ import annotations

from promo_service.metrics.definitions import Metrics
from promo_service.metrics.reconciling import ReconcileMetrics

__all__ = ["Metrics", "ReconcileMetrics"]
