"""Training in small: what is tested here is what commands do, and not how well fields learn."""

from collections.abc import Iterator

import pytest

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.registry import FIELDS

SAMPLES_PER_STEP = 1 << 11


@pytest.fixture(autouse=True, scope="module")
def _small_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for field in (VolumeField, *FIELDS.values()):
            if "samples_per_step" in vars(field):
                patch.setattr(field, "samples_per_step", SAMPLES_PER_STEP)
        yield
