// The viewport: one scene, or two on one camera. A bake is drawn while something moves; once the view rests, the server
// draws the field itself.

/** @import { SceneDescription } from "./layer.js" */
/** @import { StatusKind } from "./status.js" */
import { Turntable } from "../scene/camera.js";
import { context2d, makeCanvas, messageOf, query, queryAll } from "../scene/dom.js";
import { RadioGroup } from "../scene/radio_group.js";
import { SceneView } from "../scene/scene_view.js";
import { clamp } from "../scene/vector.js";
import { Layer } from "./layer.js";
import { ServerTiles } from "./server_tiles.js";
import { Status } from "./status.js";
import { VideoPanel } from "./video.js";

/** @typedef {"split" | "a" | "b" | "difference"} Comparison */

const REFINE_MS = 180; // without movement until images of the fields are requested
const PREVIEW_PIXELS = 160 * 120; // of an image by the server while something moves
const MAX_PIXELS = 640 * 480; // of an image of the field

export class Viewport extends SceneView {
  /**
   * @param {HTMLElement} root with the markup of viewport.html
   * @param {SceneDescription[]} scenes one or two
   */
  constructor(root, scenes) {
    const camera = new Turntable(scenes[0].camera, scenes[0].aabb);
    super(root, query(root, ".touch", HTMLElement), camera, { backgrounds: ["white", "black"] });
    this.tiles = new ServerTiles();
    this.status = new Status(query(root, ".state", HTMLElement));
    this.divider = query(root, ".split", HTMLElement);
    this.split = 0.5; // fraction of the width where the second scene begins
    this.stats = {
      /** @type {number | null} */ firstTileMs: null,
      /** @type {number | null} */ refinedMs: null,
      previews: 0,
      images: 0,
    };
    this.isStale = false; // whether the view has changed since a preview was requested
    this.isPreviewing = false;
    this.refineTimer = 0;
    const view = {
      pose: (/** @type {number} */ width, /** @type {number} */ height) => camera.pose(width, height),
      mode: () => /** @type {const} */ ("color"),
      crop: () => null,
      background: () => this.background,
      samples: 1, // the field itself comes instead of more
    };
    const elements = queryAll(root, ".layer", HTMLElement);
    this.layers = scenes.map((scene, i) => {
      const onChange = () => this.showStatus();
      return new Layer(elements[i], scene, view, onChange, () => this.frameDrawn());
    });
    const modes = query(root, ".modes", HTMLElement);
    modes.hidden = scenes.length < 2;
    /** @type {RadioGroup<Comparison>} */
    this.comparison = new RadioGroup(modes, "compare", scenes.length > 1 ? "split" : "a", () => {
      this.showLayers();
      this.cameraMoved();
    });
    this.video = new VideoPanel(this);
    this.actions.video = () => this.togglePanel("video");
    this.shortcuts.m = "video";
    this.showTitles(scenes);
    this.listenToDivider();
    this.listen();
    this.showLayers();
    this.cameraMoved();
    for (const layer of this.layers) void layer.watch();
  }

  /** @param {SceneDescription[]} scenes */
  showTitles(scenes) {
    [".first", ".second"].forEach((place, i) => {
      const title = query(this.root, `.title${place}`, HTMLElement);
      title.hidden = !scenes[i];
      if (!scenes[i]) return;
      query(title, "h1", HTMLElement).textContent = scenes[i].name;
      query(title, "p", HTMLElement).textContent = scenes[i].facts[0]?.[1] ?? "";
    });
    this.surface.setAttribute("aria-label", `3-D view of ${scenes.map((scene) => scene.name).join(" and ")}`);
  }

  listenToDivider() {
    const { divider, surface } = this;
    divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
    divider.addEventListener("pointermove", (event) => {
      if (divider.hasPointerCapture(event.pointerId)) this.setSplit(event.clientX / surface.clientWidth);
    });
    divider.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.05, ArrowRight: 0.05 }[event.key];
      if (!step) return;
      this.setSplit(this.split + step);
      event.preventDefault();
      event.stopPropagation();
    });
  }

  // -- what is shown -------------------------------------------------------------------------------------------------

  get name() {
    return this.visible.map((layer) => layer.description.name).join("_");
  }

  get modes() {
    return this.layers.length > 1 ? this.comparison : null;
  }

  get isSplit() {
    return this.comparison.value === "split";
  }

  get isDifference() {
    return this.comparison.value === "difference";
  }

  get visible() {
    const only = { a: 0, b: 1, split: null, difference: null }[this.comparison.value];
    return this.layers.filter((_, i) => only === null || i === only);
  }

  /** @param {number} fraction */
  setSplit(fraction) {
    this.split = clamp(fraction, 0, 1);
    this.showLayers();
    this.refineLater(); // only what was visible was drawn
  }

  nextBackground() {
    super.nextBackground();
    for (const layer of this.layers) layer.drawing?.loop.refresh();
    this.cameraMoved();
  }

  showLayers() {
    const { root, divider, visible } = this;
    root.dataset.compare = this.comparison.value;
    root.style.setProperty("--split", String(this.split));
    divider.hidden = !this.isSplit;
    divider.setAttribute("aria-valuenow", String(Math.round(100 * this.split)));
    for (const layer of this.layers) layer.element.hidden = !visible.includes(layer);
  }

  /**
   * @param {string | null} text
   * @param {StatusKind} kind
   */
  setStatus(text, kind) {
    this.status.set(text, kind);
    this.showStatus();
  }

  showStatus() {
    this.status.show(this.visible, this.isDifference);
  }

  // -- movement ------------------------------------------------------------------------------------------------------

  resized() {
    for (const layer of this.layers) layer.drawing?.loop.resize();
    this.cameraMoved();
  }

  cameraMoved() {
    for (const layer of this.layers) {
      layer.showBake();
      layer.drawing?.loop.invalidate();
    }
    this.isStale = true;
    this.refineLater();
    if (this.visible.every((layer) => layer.hasBake)) this.tiles.stop();
    else void this.preview();
    this.setStatus(null, "moving");
  }

  refineLater() {
    clearTimeout(this.refineTimer);
    this.refineTimer = setTimeout(() => this.refine(), REFINE_MS);
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  pick(x, y) {
    const { clientWidth, clientHeight } = this.surface;
    const { visible } = this;
    const layer = visible[this.isSplit && x > this.split * clientWidth ? 1 : 0];
    return layer.pick(this.camera.pose(clientWidth, clientHeight), x, y);
  }

  // -- the server's images -------------------------------------------------------------------------------------------

  /** Request small images while there is no bake: one at a time, each of the view of its moment. */
  async preview() {
    if (this.isPreviewing) return;
    this.isPreviewing = true;
    try {
      while (this.isStale) {
        this.isStale = false;
        if (await this.drawTiles(PREVIEW_PIXELS, true)) this.stats.previews++;
      }
    } catch (error) {
      this.setStatus(messageOf(error), this.status.kind);
    } finally {
      this.isPreviewing = false;
    }
  }

  async refine() {
    const started = performance.now();
    this.isStale = false;
    try {
      if (!(await this.drawTiles(MAX_PIXELS, false))) return;
      this.stats.images++;
      this.stats.refinedMs = performance.now() - started;
      this.setStatus("Full quality", "done");
    } catch (error) {
      this.setStatus(messageOf(error), "failed");
    }
  }

  /**
   * Draw the fields of all visible layers in at most so many pixels.
   *
   * @param {number} maxPixels
   * @param {boolean} quick whether it is a preview
   */
  drawTiles(maxPixels, quick) {
    const { clientWidth, clientHeight } = this.surface;
    const started = performance.now();
    const scale = Math.min(1, Math.sqrt(maxPixels / (clientWidth * clientHeight)));
    const width = Math.max(1, Math.floor(clientWidth * scale));
    const height = Math.max(1, Math.floor(clientHeight * scale));
    const { visible } = this;
    const halves = [
      [0, this.split],
      [this.split, 1],
    ];
    const spans = this.isSplit && !quick ? halves : visible.map(() => [0, 1]);
    const total = width * height * spans.reduce((sum, [start, end]) => sum + end - start, 0);
    const scenes = visible.map((layer) => layer.description.id);
    const options = { background: this.background === "white" ? 1 : 0, quick, spans };
    /** @type {Map<Layer, CanvasRenderingContext2D>} */
    const contexts = new Map();
    let done = 0;
    return this.tiles.load(scenes, this.camera.pose(width, height), options, (field, image, tile) => {
      const layer = visible[field];
      const context = contexts.get(layer) ?? layer.beginImage(width, height);
      contexts.set(layer, context);
      context.drawImage(image, tile.x, tile.y);
      layer.showServer();
      if (quick) return;
      if (!done) this.stats.firstTileMs = performance.now() - started;
      done += tile.width * tile.height;
      this.setStatus(`Full quality ${Math.min(99, Math.floor((100 * done) / total))} %`, "busy");
    });
  }

  /**
   * Return what is shown as an image of so many pixels.
   *
   * @param {number} width
   * @param {number} height
   */
  snapshot(width = this.surface.clientWidth, height = this.surface.clientHeight) {
    const canvas = makeCanvas(width, height);
    const context = context2d(canvas);
    context.fillStyle = this.background;
    context.fillRect(0, 0, width, height);
    this.visible.forEach((layer, order) => {
      context.save();
      if (this.isSplit && order) {
        context.beginPath();
        context.rect(this.split * width, 0, width, height);
        context.clip();
      }
      if (this.isDifference && order) context.globalCompositeOperation = "difference";
      layer.drawOnto(context, width, height);
      context.restore();
    });
    return canvas;
  }
}
