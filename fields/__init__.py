"""Neural fields: representations, cameras, rendering, training, checkpoints.

Importing this package sets the OpenMP wait policy before torch loads its thread pool. torch and
numba each bring a pool of their own; with the default policy the idle one spins and takes the
cores from the busy one (a training step was measured at 190 ms instead of 70). It also sets numba's
threading layer to one that a web server's threads may share.
"""

import os
import sys
import warnings
from typing import TYPE_CHECKING

from fieldmorph.fields.lazy import lazy_names

if "torch" in sys.modules and os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
    warnings.warn(
        "torch was imported before fieldmorph, so its idle threads spin and training may run at half speed; "
        "import fieldmorph.fields first or set OMP_WAIT_POLICY=PASSIVE",
        RuntimeWarning,
        stacklevel=2,
    )
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", "omp tbb workqueue")

if TYPE_CHECKING:
    from fieldmorph.fields.blackbox import callable_teacher as callable_teacher
    from fieldmorph.fields.budget import Budget as Budget
    from fieldmorph.fields.fit import fit_images as fit_images
    from fieldmorph.fields.metrics import psnr as psnr
    from fieldmorph.fields.registry import make_field as make_field
    from fieldmorph.fields.rendering import render_image as render_image
    from fieldmorph.fields.scene import load_scene as load_scene
    from fieldmorph.fields.store import load_field as load_field
    from fieldmorph.fields.store import save_field as save_field

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Budget": "budget:Budget",
        "callable_teacher": "blackbox:callable_teacher",
        "fit_images": "fit:fit_images",
        "load_field": "store:load_field",
        "load_scene": "scene:load_scene",
        "make_field": "registry:make_field",
        "psnr": "metrics:psnr",
        "render_image": "rendering:render_image",
        "save_field": "store:save_field",
    },
)
