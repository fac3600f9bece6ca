"""Contestants that run here, one after the other, instead of in child processes that take turns."""

import importlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from fieldmorph.apps.jobs.worker import WorkerCall


def run_inline(calls: Sequence[WorkerCall], on_end: Callable[[int, Any], object]) -> None:
    """Run each call to its end, with settings and result as they come through JSON."""
    for index, call in enumerate(calls):
        job = getattr(importlib.import_module(call.module), call.name)
        settings = json.loads(call.line())["settings"]
        on_end(index, json.loads(json.dumps(job(**settings, report=None))))
