// The page of an exported scene: image modes, crop, facts and speed around one canvas.

/** @import { Bake, BakeSource } from "../scene/bake.js" */
/** @import { Cover } from "../scene/cover.js" */
/** @import { Mode } from "../scene/shaders.js" */
import { BakeError, readBake } from "../scene/bake.js";
import { Turntable } from "../scene/camera.js";
import { CropPanel } from "../scene/crop.js";
import { append, context2d, makeCanvas, messageOf, query } from "../scene/dom.js";
import { RadioGroup } from "../scene/radio_group.js";
import { SceneCanvas } from "../scene/scene_canvas.js";
import { SceneView } from "../scene/scene_view.js";
import { requireWebgl } from "../scene/webgl.js";

const MAX_SCREENSHOT_MS = 200; // of one sample a pixel, up to which a screenshot has four

export class Page extends SceneView {
  /**
   * @param {HTMLElement} root with the markup of page.html
   * @param {Bake} bake
   * @param {Cover} cover
   * @param {boolean} usesAddress
   */
  constructor(root, bake, cover, usesAddress) {
    const { header } = bake;
    const canvas = query(root, ".image", HTMLCanvasElement);
    super(root, canvas, new Turntable(header.camera, header.aabb), {
      backgrounds: ["white", "black", "checker"],
      usesAddress,
    });
    this.header = header;
    const cropPanel = query(root, "[data-panel=crop]", HTMLElement);
    this.crop = new CropPanel(root, cropPanel, header.aabb, () => this.cameraMoved());
    /** @type {RadioGroup<Mode>} */
    this.modeGroup = new RadioGroup(query(root, ".modes", HTMLElement), "mode", "color", (mode) => {
      this.drawing.loop.invalidate(0);
      this.announce(`${mode[0].toUpperCase()}${mode.slice(1)}`);
    });
    this.whenDrawn = () => {};
    /** Resolves after the first frame. */
    this.firstFrame = new Promise(
      (/** @type {(value?: undefined) => void} */ done) => (this.whenDrawn = done),
    );
    const view = {
      pose: (/** @type {number} */ width, /** @type {number} */ height) => this.camera.pose(width, height),
      mode: () => this.modeGroup.value,
      crop: () => this.crop.box,
      background: () => this.background,
    };
    this.drawing = new SceneCanvas(canvas, bake, view, {
      onFrame: () => this.frameDrawn(),
      onLost: () =>
        cover.wait("One moment", "The graphics of this device were reset; the scene is being restored."),
      onRestored: () => cover.ready(),
      onError: (error) => showFailure(cover, error),
    });
    this.actions.crop = () => this.togglePanel("crop");
    this.actions.uncrop = () => this.crop.reset();
    this.shortcuts.c = "crop";
    this.showHeader();
    this.listen();
    this.drawing.loop.resize();
  }

  get name() {
    return this.header.name;
  }

  get modes() {
    return this.modeGroup;
  }

  /** Return counters for people and tests: milliseconds, and frames a second while something moves. */
  get stats() {
    const { stats, size, samples } = this.drawing.loop;
    const framesPerSecond = stats.movingMs ? (1000 * stats.movingFrames) / stats.movingMs : null;
    return { ...stats, framesPerSecond, width: size[0], height: size[1], samples };
  }

  showHeader() {
    const { header, root } = this;
    query(root, "h1", HTMLElement).textContent = header.name;
    query(root, ".title p", HTMLElement).textContent = header.caption;
    this.surface.setAttribute("aria-label", `3-D view of ${header.name}`);
    const list = query(root, ".facts", HTMLElement);
    for (const [name, value] of header.facts) {
      append(list, "dt", name);
      append(list, "dd", value);
    }
  }

  cameraMoved() {
    this.drawing.loop.invalidate();
  }

  resized() {
    this.drawing.loop.resize();
  }

  showBackground() {
    super.showBackground();
    this.drawing.loop.refresh();
  }

  /** @param {string | null} name */
  togglePanel(name) {
    super.togglePanel(name);
    this.showSpeed();
    this.drawOutline();
  }

  frameDrawn() {
    super.frameDrawn();
    this.drawOutline();
    this.whenDrawn();
  }

  cameraRests() {
    super.cameraRests();
    this.showSpeed();
  }

  drawOutline() {
    this.crop.drawOutline(this.camera.pose(this.surface.clientWidth, this.surface.clientHeight));
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  pick(x, y) {
    const bounds = this.surface.getBoundingClientRect();
    const pose = this.camera.pose(bounds.width, bounds.height);
    return this.drawing.renderer.pick(pose, x - bounds.left, y - bounds.top, this.crop.box);
  }

  /** Return the image as large as on the screen; over the checkerboard it is transparent. */
  snapshot() {
    const { loop, renderer } = this.drawing;
    const [width, height] = loop.size;
    const { background } = this;
    const pixels = renderer.image(this.camera.pose(width, height), {
      mode: this.modeGroup.value,
      crop: this.crop.box,
      background: background === "checker" ? null : background,
      samples: loop.msPerPixel.fine * width * height < MAX_SCREENSHOT_MS ? 4 : 1,
    });
    if (background === "checker") unpremultiply(pixels);
    const canvas = makeCanvas(width, height);
    context2d(canvas).putImageData(new ImageData(pixels, width, height), 0, 0);
    return canvas;
  }

  showSpeed() {
    if (query(this.root, "[data-panel=about]", HTMLElement).hidden) return;
    const { firstMs, restMs, framesPerSecond, width, height } = this.stats;
    const known = [
      firstMs !== null && `first image after ${duration(firstMs)}`,
      framesPerSecond !== null && `${Math.round(framesPerSecond)} frames/s while moving`,
      restMs !== null && `image of ${width} × ${height} at rest in ${duration(restMs)}`,
    ].filter(Boolean);
    query(this.root, ".speed", HTMLElement).textContent = known.length
      ? `On this device: ${known.join(", ")}.`
      : "";
  }
}

/**
 * Load a bake and show it once its first image is drawn.
 *
 * @param {HTMLElement} root
 * @param {BakeSource} source
 * @param {Cover} cover
 * @param {boolean} usesAddress
 * @returns {Promise<Page>}
 */
export async function openPage(root, source, cover, usesAddress) {
  requireWebgl();
  const bake = await readBake(source, (fraction, activity) => cover.progress(fraction, activity));
  cover.progress(1, "Preparing textures");
  await new Promise((done) => setTimeout(done)); // lets the browser show it
  const page = new Page(root, bake, cover, usesAddress);
  await page.firstFrame;
  return page;
}

/**
 * @param {Cover} cover
 * @param {unknown} error
 */
export function showFailure(cover, error) {
  const isKnown = error instanceof BakeError;
  if (!isKnown) console.error(error);
  const message = messageOf(error);
  cover.fail("This scene cannot be shown", isKnown ? message : `Unexpected error: ${message}`);
}

/** @param {number} ms */
function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** @param {Uint8ClampedArray} pixels */
function unpremultiply(pixels) {
  for (let i = 0; i < pixels.length; i += 4) {
    const factor = pixels[i + 3] ? 255 / pixels[i + 3] : 0;
    for (let c = 0; c < 3; c++) pixels[i + c] *= factor;
  }
}
