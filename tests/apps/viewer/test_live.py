"""A field that trains is shown as it was a few seconds ago, and only while somebody looks."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from helpers.view_fields import ball_field, request_of

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.viewer import live
from fieldmorph.apps.viewer.live import LiveView
from fieldmorph.fields.budget import Spent
from fieldmorph.fields.cameras import resize
from fieldmorph.fields.progress import Progress

pytest.importorskip("uvicorn")


def test_a_copy_is_shown_and_follows_while_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.0)
    said: list[str] = []
    stored = ball_field()
    with LiveView(0, "ball", said.append) as view, httpx.Client(base_url=view.url, timeout=60) as client:
        view.open(stored)
        assert said[0].startswith(view.url)
        view.update(Progress(1, 0.1, 20.0, Spent()))
        assert view.scene is not None
        assert view.scene.revision == 0  # nobody has looked
        page = client.get("/", follow_redirects=True)
        assert page.url.path == "/viewport"
        place = f"/scenes/{view.scene.id}"
        assert client.get(place).json()["revision"] == 0
        camera = resize(stored.cameras[0], 16, 12)
        before = client.post("/tiles", json=request_of(camera, scenes=[view.scene.id])).content
        with torch.no_grad():
            stored.field.density_values.fill_(-6.0)  # as if it were trained
        again = client.post("/tiles", json=request_of(camera, scenes=[view.scene.id])).content
        assert again == before
        view.update(Progress(120, 0.2, 21.25, Spent()))
        described = client.get(place).json()
        assert (described["revision"], described["quality"]) == (1, "step 120, 21.2 dB")
        assert client.post("/tiles", json=request_of(camera, scenes=[view.scene.id])).content != before
        assert client.post("/files", content=b"x").status_code in (404, 405)
        assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    with pytest.raises(httpx.ConnectError):
        httpx.get(view.url)


def test_train_takes_the_option(few_views: Path, tmp_path: Path, capsys: Any) -> None:
    command = [
        "train",
        str(few_views),
        "-o",
        str(tmp_path / "a.fm"),
        "--steps",
        "5",
        "--view",
        "0",
        "--quiet",
    ]
    assert main(command) == 0
    assert "shows the field while it trains" in capsys.readouterr().err
