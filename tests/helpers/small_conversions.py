"""Conversions that learn from few rays and measure few, small images, here and in the viewer's child processes."""

import sys

import pytest
from helpers.defaults import CONVERT, FIDELITY, SAMPLING

SMALL = {
    CONVERT: {"probe_rays": 256},
    SAMPLING: {"block_rays": 256, "block_empty": 256},
    FIDELITY: {"n_held_out": 2, "longest_side": 24},
}
CHILD = f"""
from fieldmorph.apps.jobs.worker import serve
from fieldmorph.distill.config import ConvertConfig
from fieldmorph.distill.fidelity import FidelityConfig
from fieldmorph.distill.teacher_samples import SamplingConfig
ConvertConfig.__init__.__kwdefaults__.update({SMALL[CONVERT]})
SamplingConfig.__init__.__kwdefaults__.update({SMALL[SAMPLING]})
FidelityConfig.__init__.__kwdefaults__.update({SMALL[FIDELITY]})
serve()
"""


def shrink_conversions(patch: pytest.MonkeyPatch) -> None:
    """Change the defaults here, and the command by which the viewer starts a conversion."""
    for owner, values in SMALL.items():
        for name, value in values.items():
            patch.setattr(owner, name, value)
    patch.setattr("fieldmorph.apps.viewer.conversion.COMMAND", (sys.executable, "-P", "-c", CHILD))
