"""Shape checks on every public signature, and a field whose values are known everywhere."""

import math
import warnings

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
import jaxtyping

# Signatures are checked under pytest only. jaxtyping decorates what is inside @numba.njit as well, which numba cannot
# compile, so the kernels and the encodings stay as they are; their callers are checked.
_CHECKED = [
    *(
        f"fieldmorph.fields.{module}"
        for module in "base cameras catalog checkpoint decoder fit hashgrid metrics mlp network occupancy "
        "render runtime scene scenes".split()
    ),
    "fieldmorph.distill",
    "fieldmorph.apps",
]
jaxtyping.install_import_hook(_CHECKED, "beartype.beartype")
warnings.filterwarnings("ignore", module="beartype")

import pytest  # noqa: E402
import torch  # noqa: E402
