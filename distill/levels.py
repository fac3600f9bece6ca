"""Names of the levels of active learning, which `fieldmorph.distill.active` implements."""

from fieldmorph.fields.errors import SettingError, known

LEVELS = ("pose", "ray", "point")


def check_levels(levels: tuple[str, ...]) -> None:
    """Check the names of levels.

    Raises:
        SettingError: a level does not exist, or is named twice.
    """
    for level in levels:
        if level not in LEVELS:
            raise known("level of active learning", level, list(LEVELS))
    if len(set(levels)) != len(levels):
        raise SettingError(f"a level of active learning is named twice: {', '.join(levels)}")
