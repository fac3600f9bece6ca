"""Take screenshots of every state of the viewer, of the demo's page and of an exported page, in Debian's chromium.

    fieldmorph demo && fieldmorph tensor demo
    python data_scripts/screenshots.py demo_output --only two.split page.scene -o build/screenshots

The browser is that of the tests: it needs chromium and playwright. Each state is shown at three sizes, light and dark,
as `STATE_SIZE_SCHEME.png`; `screenshot_sheets.py` puts all of a state into one image, to look at them together.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldmorph.apps.bench.browser_page import chromium
from fieldmorph.apps.viewer.app import make_viewer
from fieldmorph.apps.viewer.loading import STEPS, LoadingPage, LoadingState
from fieldmorph.apps.viewer.server import Server, listen, page_url
from fieldmorph.fields.errors import InputError, SettingError

SIZES = {"desk": (1280, 800), "wide": (1920, 1080), "phone": (390, 844)}  # CSS pixels
SCHEMES = ("light", "dark")
TIMEOUT = 300.0  # seconds
NEEDED = ("teacher.fm", "student.fm", "index.html", "student.html")  # of the demo's folder


@dataclass(frozen=True)
class Visit:
    """One page of the browser.

    Attributes:
        page: of Playwright.
        frame: of the viewport; None where the page has none.
    """

    page: Any
    frame: Any = None

    def view(self, script: str) -> None:
        """Change the viewport `v` by a script, and wait until the server has drawn what it shows."""
        self.frame.evaluate(f"(() => {{ const v = window.fieldmorph; {script} }})()")
        self.page.wait_for_timeout(400)  # after which images with more pixels are requested
        self.until("['done', 'failed'].includes(document.querySelector('.state').dataset.kind)")

    def until(self, expression: str) -> None:
        """Wait until an expression is true in the frame."""
        wait(lambda: (self.frame or self.page).evaluate(expression), expression)


State = Callable[[Visit], Any]

RESET = (
    "v.comparison.choose('split'); v.viewPanel.images.choose('color'); v.viewPanel.crop.reset(); v.camera.reset();"
    "v.setSplit(0.5); v.togglePanel(null); v.cameraMoved();"
)
# What each state of two fields changes.
TWO_FIELDS = {
    "split": "",
    "second": "v.comparison.choose('b')",
    "difference": "v.comparison.choose('difference')",
    "depth": "v.viewPanel.images.choose('depth'); v.actions.view();",
    "opacity": "v.viewPanel.images.choose('opacity'); v.actions.view();",
    "crop": "v.actions.view(); const x = v.root.querySelector('.track input:last-of-type');"
    "x.value = 110; x.dispatchEvent(new Event('input', {bubbles: true}))",
    "field_of_view": "v.actions.view(); v.moveCamera(() => v.camera.fov = 70)",
    "cameras": "v.moveCamera(() => v.camera.zoom(3)); v.actions.cameras();",
    "video": "v.actions.video()",
    "help": "v.actions.about()",
}


def wait(true: Callable[[], Any], what: str) -> None:
    """Wait until something is true.

    Raises:
        RuntimeError: it is not for TIMEOUT seconds.
    """
    end = time.monotonic() + TIMEOUT
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"never true: {what}")
        time.sleep(0.1)


class ScreenshotTaker:
    """Opens pages of every size and scheme, and saves what they show.

    Args:
        browser: of Playwright.
        folder: for the images.
        only: names of states, or their beginnings; all where it is empty.
        sizes: some of `SIZES`.
    """

    def __init__(
        self, browser: Any, folder: Path, only: Sequence[str] = (), sizes: Sequence[str] = tuple(SIZES)
    ):
        self.browser, self.folder, self.only = browser, folder, tuple(only)
        self.sizes = {name: SIZES[name] for name in sizes}

    def wants(self, state: str) -> bool:
        """Return whether a state, or one whose name begins so, is to be shown."""
        return not self.only or any(state.startswith(name) or name.startswith(state) for name in self.only)

    def visits(self, url: str) -> Iterator[tuple[Visit, str]]:
        """Open an address at every size and in every scheme; yield the page and a name for the two."""
        for size, (width, height) in self.sizes.items():
            for scheme in SCHEMES:
                is_phone = size == "phone"
                context = self.browser.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                    has_touch=is_phone,
                    is_mobile=is_phone,
                )
                page = context.new_page()
                page.set_default_timeout(1000 * TIMEOUT)
                page.goto(url)
                yield Visit(page), f"{size}_{scheme}"
                context.close()

    def save(self, visit: Visit, state: str, name: str, whole: bool = False) -> None:
        """Save what a page shows, or all of it however long it is."""
        visit.page.wait_for_timeout(250)
        visit.page.screenshot(path=self.folder / f"{state}_{name}.png", full_page=whole)
        print(f"{state}_{name}", flush=True)

    def page_states(self, group: str, url: str, states: dict[str, State], whole: bool = True) -> None:
        """Show a page in several states, each made from the one before."""
        if not self.wants(f"{group}."):
            return
        for visit, name in self.visits(url):
            for state, prepare in states.items():
                if self.wants(f"{group}.{state}"):
                    prepare(visit)
                    self.save(visit, f"{group}.{state}", name, whole)

    def viewport_states(self, group: str, url: str, states: dict[str, str]) -> None:
        """Show the viewport in several states, each made from its first one by a script."""
        if not self.wants(f"{group}."):
            return
        for visit, name in self.visits(url):
            open_visit = with_viewport(visit)
            for state, script in states.items():
                if self.wants(f"{group}.{state}"):
                    open_visit.view(RESET + script)
                    self.save(open_visit, f"{group}.{state}", name)


def with_viewport(visit: Visit) -> Visit:
    """Return a visit of a page whose viewport has opened."""
    frame = visit.page.wait_for_selector("iframe").content_frame()
    frame.wait_for_url("**/viewport*")
    found = Visit(visit.page, frame)
    found.until("(window.fieldmorph?.root?.dataset.state ?? 'loading') !== 'loading'")
    return found


@contextmanager
def serving(app: Any) -> Iterator[tuple[str, Server]]:
    """Serve an application on any free port."""
    listening = listen("127.0.0.1", 0)
    server = Server(listening, app)
    server.start()
    try:
        yield page_url("127.0.0.1", listening.getsockname()[1]), server
    finally:
        server.stop()


@contextmanager
def viewing(files: Sequence[Path], max_pixels: int, **options: Any) -> Iterator[tuple[str, Server]]:
    """Serve a viewer of files; options are those of `make_viewer`."""
    viewer = make_viewer(files, bake=False, max_pixels=max_pixels, **options)
    try:
        with serving(LoadingPage(LoadingState())) as (url, server):
            server.replace(viewer.app)  # which starts Gradio's queue of events
            yield url, server
    finally:
        viewer.close()


def show_start(taker: ScreenshotTaker, student: Path, max_pixels: int) -> None:
    """Show the loading page, the empty viewer, and one whose server has gone."""
    if taker.wants("start.loading"):
        state = LoadingState()
        for title in STEPS[:3]:
            state.begin(title)
        with serving(LoadingPage(state)) as (url, _):
            taker.page_states(
                "start", url, {"loading": lambda visit: visit.page.wait_for_selector("li.current")}
            )
    if taker.wants("start.empty"):
        with viewing([], max_pixels) as (url, _):
            taker.page_states("start", url, {"empty": with_viewport})
    if taker.wants("start.gone"):
        for size in taker.sizes:
            with viewing([student], max_pixels) as (url, server):
                open_visits = [(with_viewport(visit), name) for visit, name in _held(taker, url, size)]
                server.stop()
                for visit, name in open_visits:
                    visit.view("v.moveCamera(() => v.camera.orbit(0.4, 0.1))")
                    taker.save(visit, "start.gone", name)
                    visit.page.context.close()


def _held(taker: ScreenshotTaker, url: str, size: str) -> Iterator[tuple[Visit, str]]:
    """Open an address at one size in every scheme, and leave the pages open."""
    width, height = SIZES[size]
    for scheme in SCHEMES:
        page = taker.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        ).new_page()
        page.goto(url)
        yield Visit(page), f"{size}_{scheme}"


def scroll_down(visit: Visit) -> None:
    """Scroll to the end of a page; a screenshot of the whole of it would change the size of its viewport."""
    visit.page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")


def show_scenes(taker: ScreenshotTaker, teacher: Path, student: Path, max_pixels: int) -> None:
    """Show one field, two fields and a list of several."""
    if taker.wants("one."):
        with viewing([student], max_pixels) as (url, _):
            states = {"scene": lambda visit: with_viewport(visit).view(""), "facts": scroll_down}
            taker.page_states("one", url, states, whole=False)
    if taker.wants("two."):
        with viewing([teacher, student], max_pixels) as (url, _):
            taker.viewport_states("two", url, TWO_FIELDS)
    if taker.wants("several."):
        with tempfile.TemporaryDirectory() as folder:
            other = Path(shutil.copy(student, Path(folder) / "another_student.fm"))
            with viewing([teacher, student, other], max_pixels) as (url, _):
                states: dict[str, State] = {
                    "scene": lambda visit: with_viewport(visit).view(""),
                    "list": lambda visit: visit.page.get_by_label("Second, to compare").click(),
                }
                taker.page_states("several", url, states, whole=False)


def show_conversion(taker: ScreenshotTaker, teacher: Path, student: Path, budget: str) -> None:
    """Show the tab of conversions before, during and after one, and with a mistake in its form."""

    def empty(visit: Visit) -> None:
        visit.page.get_by_role("tab", name="Convert").click()
        visit.page.wait_for_timeout(1500)  # the components get their values after they are shown

    def mistaken(visit: Visit) -> None:
        visit.page.get_by_text("More settings").click()
        visit.page.get_by_label("Training time").fill("soon")
        visit.page.get_by_role("button", name="Convert", exact=True).click()
        visit.page.wait_for_selector(".convert-tab .invalid")

    if not taker.wants("convert."):
        return
    with viewing([teacher, student], 320 * 240) as (url, _):
        taker.page_states("convert", url, {"empty": empty, "mistake": mistaken})
        if not (taker.wants("convert.running") or taker.wants("convert.done")):
            return
        page = taker.browser.new_context().new_page()
        page.set_default_timeout(1000 * TIMEOUT)
        page.goto(url)
        visit = Visit(page)
        empty(visit)
        page.get_by_label("Training time").fill(budget)
        page.get_by_role("button", name="Convert", exact=True).click()
        for state, selector in {"running": ".converter .chart", "done": ".converter .figures"}.items():
            # A student with low density everywhere is measured slowly.
            page.wait_for_selector(selector, timeout=3000 * TIMEOUT)
            for size, (width, height) in taker.sizes.items():
                for scheme in SCHEMES:  # of the same conversion
                    page.set_viewport_size({"width": width, "height": height})
                    page.emulate_media(color_scheme=scheme)
                    taker.save(visit, f"convert.{state}", f"{size}_{scheme}", whole=True)
        page.context.close()


def show_tensor(taker: ScreenshotTaker, model: Path, points: Path | None, max_pixels: int) -> None:
    """Show the tab of a tensor model: a map, and where to measure next."""
    from fieldmorph.apps.tensor.map_layers import MapSettings

    def tensor_map(visit: Visit) -> None:
        visit.page.wait_for_selector(".explorer .drawn svg")
        visit.page.wait_for_selector(".explorer .figures svg")

    def next_places(visit: Visit) -> None:
        visit.page.get_by_role("radio", name="Where to measure next").click()
        visit.page.wait_for_selector(".pins button")

    if taker.wants("tensor."):
        with viewing([model], max_pixels, maps=MapSettings("sea", points)) as (url, _):
            taker.page_states("tensor", url, {"map": tensor_map, "next": next_places})


def show_pages(taker: ScreenshotTaker, demo: Path) -> None:
    """Show the demo's page, and an exported page in its states."""

    def drawn(visit: Visit) -> None:
        visit.until("window.fieldmorph?.root?.dataset.state === 'ready'")
        visit.page.wait_for_timeout(1500)  # the image at rest

    def press(*keys: str) -> State:
        def prepare(visit: Visit) -> None:
            for key in keys:
                visit.page.keyboard.press(key)
            visit.page.wait_for_timeout(1500)

        return prepare

    taker.page_states(
        "demo", (demo / "index.html").as_uri(), {"page": lambda visit: visit.page.wait_for_timeout(6000)}
    )
    states = {
        "scene": drawn,
        "depth": press("2"),
        "opacity": press("3"),
        "crop": press("1", "c"),
        "about": press("h"),
    }
    taker.page_states("page", (demo / "student.html").as_uri(), states, whole=False)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("demo", type=Path, help="folder that `fieldmorph demo` wrote")
    found.add_argument("--tensor", type=Path, help="tensor model to show (default DEMO/tensor/model.fm)")
    found.add_argument("--points", type=Path, help="table of the measurements that it was fitted to")
    found.add_argument("--only", nargs="*", default=(), metavar="STATE", help="such as two.split, or two.")
    found.add_argument(
        "--sizes", nargs="*", choices=SIZES, default=tuple(SIZES), help="sizes of the browser's window"
    )
    found.add_argument("--budget", default="30cs", help="of the conversion that is shown (default 30cs)")
    found.add_argument("--max-pixels", type=int, default=1 << 21, help="of an image that the server renders")
    found.add_argument("-o", "--output", type=Path, default=Path("build/screenshots"))
    return found


def run(args: argparse.Namespace) -> None:
    """Take the screenshots that a command line names.

    Raises:
        InputError: a file of the demo is missing.
        RuntimeError: there is no browser, or a page never gets ready.
    """
    for name in NEEDED:
        if not (args.demo / name).exists():
            raise InputError(f"{args.demo / name}: no such file; `fieldmorph demo -o {args.demo}` writes it")
    args.output.mkdir(parents=True, exist_ok=True)
    teacher, student = args.demo / "teacher.fm", args.demo / "student.fm"
    with chromium() as browser:
        taker = ScreenshotTaker(browser, args.output, args.only, args.sizes)
        show_start(taker, student, args.max_pixels)
        show_scenes(taker, teacher, student, args.max_pixels)
        show_conversion(taker, teacher, student, args.budget)
        model = args.tensor or args.demo / "tensor" / "model.fm"
        if model.exists():
            show_tensor(taker, model, args.points, args.max_pixels)
        show_pages(taker, args.demo)


def main() -> int:
    """Run the command line, and return its exit code."""
    try:
        run(parser().parse_args())
    except (InputError, SettingError, RuntimeError) as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
