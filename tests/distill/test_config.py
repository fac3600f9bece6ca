"""Settings of a conversion that cannot be used are refused before a conversion begins."""

from typing import Any

import pytest

from fieldmorph.distill.config import ConvertConfig
from fieldmorph.distill.teacher_samples import SamplingConfig
from fieldmorph.fields.errors import SettingError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probe_rays": 0}, "probe_rays must be a whole number of at least 1; got 0"),
        ({"warmup_steps": 0}, "warmup_steps must be"),
        ({"note_every": 0}, "note_every must be"),
        ({"sampling": SamplingConfig(block_rays=512)}, "probe_rays must be at most 512.*; got 2048"),
        ({"active": ("ray", "ray")}, "named twice"),
        ({"samples_per_step": 0}, "samples_per_step must be a whole number of at least 1; got 0"),
        ({"lr_grid": 0}, "lr_grid must be a finite number above 0; got 0"),
        ({"lr_network": float("nan")}, "lr_network must be a finite number above 0; got nan"),
        ({"lr_share": -1.0}, r"lr_share must be a finite number above 0; got -1\.0"),
        ({"lr_decay": float("inf")}, "lr_decay must be a finite number above 0; got inf"),
        ({"lr_final": float("nan")}, "lr_final must be a finite number of at least 0; got nan"),
        ({"empty_share": True}, "empty_share must be a finite number of at least 0; got True"),
        ({"finish_lr_share": 0.0}, r"finish_lr_share must be a finite number above 0; got 0\.0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        ConvertConfig(**settings)


def test_a_block_may_have_just_the_rays_of_the_probe() -> None:
    assert ConvertConfig(probe_rays=512, sampling=SamplingConfig(block_rays=512)).probe_rays == 512
