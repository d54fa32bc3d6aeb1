"""The seven claims, in the order of the report."""

from __future__ import annotations

from evaluation.claims import burst, database_cpu, last_use, memory, peak, survival, validation
from evaluation.claims.claim import Before, Claim, Finding, Unclear, Verdict

CLAIMS: dict[int, Claim] = {
    module.CLAIM.number: module.CLAIM
    for module in (burst, validation, memory, last_use, peak, database_cpu, survival)
}

__all__ = ["CLAIMS", "Before", "Claim", "Finding", "Unclear", "Verdict"]
