"""python -m promo_service."""

from __future__ import annotations

from promo_service.cli import main

main(prog_name="python -m promo_service")
