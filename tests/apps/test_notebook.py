import html
import re
from pathlib import Path

import pytest
from helpers.view_fields import ball_field, save_ball
from helpers.voxel_fields import ball

from fieldmorph.apps import show
from fieldmorph.fields.errors import SettingError


@pytest.mark.parametrize("what", ["field", "stored", "file"])
def test_a_field_is_shown_by_a_page_of_its_own(what: str, tmp_path: Path) -> None:
    given = {
        "field": lambda: ball(16),
        "stored": ball_field,
        "file": lambda: save_ball(tmp_path / 'a"<b>.fm'),
    }
    shown = show(given[what](), resolution=16, height=321)
    cell = shown._repr_html_()
    (content,) = re.findall(r'srcdoc="([^"]*)"', cell)
    assert html.unescape(content) == shown.page
    assert "height: 321px" in cell
    assert "bake-density" in shown.page
    assert "<b>" not in cell


def test_a_frame_s_scripts_cannot_reach_the_notebook() -> None:
    cell = show(ball_field(), resolution=16)._repr_html_()
    assert re.search(r'sandbox="([^"]*)"', cell)[1].split() == ["allow-scripts", "allow-downloads"]


def test_a_resolution_that_a_bake_does_not_have_is_refused() -> None:
    with pytest.raises(SettingError, match="resolution"):
        show(ball_field(), resolution=17)
