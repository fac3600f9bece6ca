"""Settings in saved states: those that 0.1 did not have are left out at their defaults."""

from fieldmorph.distill.config import ConvertConfig
from fieldmorph.distill.teacher_samples import SamplingConfig
from fieldmorph.fields.fit import FitConfig
from fieldmorph.fields.settings import saved_settings

FIT_OF_0_1 = "samples_per_step lr_grid lr_network lr_decay occupancy_resolution occupancy_every seed"
CONVERT_OF_0_1 = (
    "stages start active samples_per_step empty_share lr_grid lr_network "
    "lr_share lr_decay fresh seed probe_seed"
)


def test_defaults_are_saved_as_0_1_did() -> None:
    assert list(saved_settings(FitConfig())) == FIT_OF_0_1.split()
    assert list(saved_settings(ConvertConfig())) == CONVERT_OF_0_1.split()
    stage = saved_settings(ConvertConfig())["stages"][1]
    assert list(stage) == ["name", "share", "losses", "source", "requires"]


def test_a_new_setting_is_saved_where_it_is_not_the_default() -> None:
    assert saved_settings(FitConfig(warmup_steps=9))["warmup_steps"] == 9
    config = ConvertConfig(lr_final=0.1, sampling=SamplingConfig(n_blocks=4))
    saved = saved_settings(config)
    assert saved["lr_final"] == 0.1
    assert saved["sampling"]["n_blocks"] == 4
    assert "probe_rays" not in saved
    assert saved_settings(ConvertConfig(transplant=False))["transplant"] is False
    assert saved_settings(ConvertConfig(sampling=SamplingConfig())) == saved_settings(ConvertConfig())
