"""Levels of active learning are known by name."""

import pytest

from fieldmorph.distill.levels import check_levels
from fieldmorph.fields.errors import SettingError


def test_levels_are_known_by_name() -> None:
    check_levels(("pose", "ray", "point"))
    check_levels(())
    with pytest.raises(
        SettingError, match="unknown level of active learning 'rays'; known: point, pose, ray"
    ):
        check_levels(("rays",))
    with pytest.raises(SettingError, match="named twice: ray, ray"):
        check_levels(("ray", "ray"))
