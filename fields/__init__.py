"""Neural fields: representations, cameras, rendering, training, checkpoints.

Importing this package sets the OpenMP wait policy before torch loads its thread pool. torch and
numba each bring a pool of their own; with the default policy the idle one spins and takes the
cores from the busy one (a training step was measured at 190 ms instead of 70). It also asks numba for a
threading layer that a web server's threads may share.
"""

import os
import sys
import warnings

if "torch" in sys.modules and os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
    warnings.warn(
        "torch was imported before fieldmorph, so its idle threads spin and training may run at half speed; "
        "import fieldmorph.fields first or set OMP_WAIT_POLICY=PASSIVE",
        RuntimeWarning,
        stacklevel=2,
    )
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", "omp tbb workqueue")
