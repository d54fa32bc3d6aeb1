"""Measuring a claim, once more where the machine may be to blame, and what was before."""

from __future__ import annotations

import time
from typing import Any

import psutil
from pymongo.errors import PyMongoError

from evaluation.claims import Before, Claim, Finding, Unclear, Verdict
from evaluation.lab import Lab
from evaluation.load import LoadFailed
from evaluation.processes import ServiceFailed
from promo_service.errors import DatabaseUnavailable, MongodError

# How long others are waited for before something is measured once more.
FREE_SECONDS = 45.0
FREE_STEP = 3.0
CANNOT = "could not be measured"
# What a busy machine does to those who measure.
OUR_TROUBLE = (LoadFailed, MongodError, DatabaseUnavailable, OSError, PyMongoError)


def judge(claim: Claim, lab: Lab, *, compare: bool = True) -> Verdict:
    """Measure a claim, and the legacy service beside it if it is to be compared.

    A wrong answer is a wrong answer. What is only late, or not certain, is measured once more, and
    the second finding counts; the first one is kept and shown.
    """
    started = time.monotonic()
    finding, first = _found(claim, lab), None
    if finding.is_unclear:
        lab.say(f"{'; '.join(finding.problems)}: once more")
        _wait_for_a_free_core()
        # What several claims share is measured anew.
        lab.kept.clear()
        finding, first = _found(claim, lab), finding
    before = _before(claim, lab, finding.figures) if compare else Before("not measured")
    return Verdict(claim, finding, before, time.monotonic() - started, first)


def _wait_for_a_free_core() -> None:
    """Wait until others leave a core of the machine free; not for ever."""
    deadline = time.monotonic() + FREE_SECONDS
    # Nothing of ours runs at this moment.
    while time.monotonic() < deadline:
        busy = psutil.cpu_percent(FREE_STEP) / 100 * psutil.cpu_count()
        if busy <= max(0, psutil.cpu_count() - 1):
            return


def _found(claim: Claim, lab: Lab) -> Finding:
    lab.rest()
    try:
        return claim.measure(lab)
    except ServiceFailed as error:
        return Finding(CANNOT, [str(error)])
    except OUR_TROUBLE as error:
        return Finding(CANNOT, [Unclear(error)])


def _before(claim: Claim, lab: Lab, figures: dict[str, Any]) -> Before:
    if not figures:
        return Before("not measured")
    lab.rest()
    try:
        return claim.before(lab, figures)
    except (ServiceFailed, *OUR_TROUBLE) as error:
        return Before(f"{CANNOT}: {error}")
