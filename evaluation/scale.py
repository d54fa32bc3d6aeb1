"""How much is measured: the claims as they stand, or a quick look that a build can afford."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation import dataset


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes of all measurements; the bounds that depend on a size stand beside it."""

    name: str
    codes: int
    uses: int
    # How long the legacy service is waited for before it "did not finish".
    patience: float
    burst_rounds: int
    lone_requests: int
    normal_seconds: float
    soak_requests: int
    soak_segment: int
    # Bytes and items a request: fewer requests tell less, so a quick look can promise less, and
    # is shown a larger leak.
    soak_bytes: float
    soak_items: float
    leak_bytes: int
    leak_requests: int
    legacy_soak_requests: int
    last_use_rounds: int
    legacy_rounds: int
    flash_rate: float
    flash_seconds: float
    ladder: tuple[float, ...]
    ladder_seconds: float
    fault_rounds: int
    fault_seconds: float
    # At 50/s, and no faster: set by --duration.
    real_time: bool = False


FULL = Scale(
    name="full",
    codes=dataset.CODES,
    uses=dataset.USES,
    patience=15,
    burst_rounds=5,
    lone_requests=500,
    normal_seconds=60,
    soak_requests=1_440_000,
    soak_segment=20_000,
    soak_bytes=1,
    soak_items=1e-5,
    leak_bytes=64,
    leak_requests=160_000,
    legacy_soak_requests=20_000,
    last_use_rounds=1_000,
    legacy_rounds=200,
    flash_rate=2_000,
    flash_seconds=60,
    ladder=(250, 500, 1_000, 1_500, 2_000, 2_500, 3_000),
    ladder_seconds=6,
    fault_rounds=400,
    fault_seconds=80,
)

QUICK = Scale(
    name="quick",
    codes=2_000,
    uses=40_000,
    patience=3,
    burst_rounds=3,
    lone_requests=200,
    normal_seconds=6,
    soak_requests=10_000,
    soak_segment=1_000,
    soak_bytes=256,
    soak_items=3e-3,
    leak_bytes=2_048,
    leak_requests=6_000,
    legacy_soak_requests=2_400,
    last_use_rounds=150,
    legacy_rounds=20,
    flash_rate=150,
    flash_seconds=6,
    ladder=(250, 1_000),
    ladder_seconds=1.5,
    fault_rounds=40,
    fault_seconds=9,
)
