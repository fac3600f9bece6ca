"""A scene whose tiles are held back, as those of a slow field come late."""

import threading
from typing import Any

from fieldmorph.apps.viewer import tiles


class Gate:
    """Holds back the tiles of one scene while it is closed."""

    def __init__(self) -> None:
        self.scene: Any = None
        self.open = threading.Event()
        self.open.set()

    def render_tile(self, stored: Any, *others: Any) -> Any:
        if self.scene is not None and stored is self.scene.stored:
            self.open.wait(60)
        return tiles.render_tile(stored, *others)
