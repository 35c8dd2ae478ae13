"""Preflight's check of the work folder: may this run write there?"""

from __future__ import annotations

from collections.abc import Iterator

from whoamai.engine.workdir import problems_with_work_dir
from whoamai.plan.preflight_facts import Facts, PreflightFinding, finding


def work_dir_used(facts: Facts) -> Iterator[PreflightFinding]:
    """A folder in use, or with a run in it that is not to be gone on with, or with other files."""
    for problem in problems_with_work_dir(facts.work_dir, resume=facts.resume):
        yield finding("work-dir-used", problem)
