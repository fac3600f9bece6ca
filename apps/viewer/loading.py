"""The page that answers while the viewer loads: its steps, and a script that opens the viewer once it is there."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from fieldmorph.apps.viewer.security import Receive, Scope, Send
from fieldmorph.apps.web import assets
from fieldmorph.fields.types import JsonObject

STEPS = (
    "Load PyTorch",
    "Read the files",
    "Load kernels (the first time 40 s)",
    "Load Gradio",
    "Make the page",
)
PATH = "loading"  # under which the page finds the state; the viewer answers it with an error
HEADERS = {"cache-control": "no-store", "retry-after": "1"}


@dataclass
class LoadingState:
    """Steps of a start, and which of them is under way.

    Attributes:
        on_step: called with the title of a step that begins, and its number of those of `titles`.
        titles: of all steps, in their order.
    """

    on_step: Callable[[str], None] = lambda _: None
    titles: Sequence[str] = STEPS
    began: list[float] = field(default_factory=list)

    def begin(self, title: str) -> None:
        """Begin the next step.

        Raises:
            ValueError: another one is next.
        """
        expected = self.titles[len(self.began)]
        if title != expected:
            raise ValueError(f"the next step is {expected!r}, not {title!r}")
        self.began.append(time.monotonic())
        self.on_step(title)

    def as_json(self) -> JsonObject:
        """Return each step's title, and its seconds where it has begun; the last of these is under way."""
        ends = [*self.began[1:], time.monotonic()]
        seconds = [round(end - start, 1) for start, end in zip(self.began, ends, strict=False)]
        waiting = [None] * (len(self.titles) - len(seconds))
        steps = zip(self.titles, [*seconds, *waiting], strict=True)
        return {"steps": [{"title": title, "seconds": n} for title, n in steps]}


class LoadingPage:
    """An ASGI application that answers every address with the page, and `PATH` with the state.

    The status is 503 with `Retry-After`: a browser shows the page, and a program knows that the viewer is not up yet.
    """

    def __init__(self, state: LoadingState):
        self._state = state
        self._page, self._policy = assets.inline_page(
            "loading/loading.html", "loading/loading.css", "loading/main.js"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("the viewer is being loaded; try again in a moment\n", 503, HEADERS)
        if scope["path"].rpartition("/")[2] == PATH:
            return JSONResponse(self._state.as_json(), headers=HEADERS)
        return HTMLResponse(self._page, 503, {**HEADERS, "content-security-policy": self._policy})
