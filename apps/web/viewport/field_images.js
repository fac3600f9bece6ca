// Requests images of the fields themselves, each with more pixels than the one before: a coarse one of layers without a
// bake, also while the view moves, and once it rests a medium one and one of the screen's own pixels, tile by tile.

/** @import { Layer } from "./layer.js" */
/** @import { Viewport } from "./viewport.js" */
import { messageOf } from "../scene/dom.js";
import { clamp } from "../scene/vector.js";
import { ServerTiles } from "./server_tiles.js";

/** @typedef {"coarse" | "medium" | "fine"} Level */

const REFINE_MS = 180; // without movement until images with more pixels are requested
const COARSE_MS = 350; // that the server takes for a coarse image of all layers
const COARSE_PIXELS = { min: 40 * 30, max: 320 * 240 }; // a first one has few: how fast the field is shows only then
const MEDIUM_RATIO = 4; // of a medium image's pixels over the coarse one's
const MIN_RATIO = 1.5; // of a fine image's pixels over the medium one's: below it there is no medium one

export class FieldImages {
  /**
   * @param {Viewport} viewport
   * @param {number} maxPixels of an image, a setting of the server
   */
  constructor(viewport, maxPixels) {
    this.viewport = viewport;
    this.maxPixels = maxPixels;
    this.tiles = new ServerTiles();
    this.version = 0; // counts changes of the view
    this.requested = 0; // version of the coarse image that is under way
    this.coarsePixels = COARSE_PIXELS.min;
    this.isPreviewing = false;
    this.isResting = false;
    this.timer = 0;
    this.movedAt = 0;
    this.wholeAt = 0;
    this.stats = {
      /** @type {number | null} from the last movement until all coarse images were there */ coarseMs: null,
      /** @type {number | null} from then on until the first tile with more pixels */ firstTileMs: null,
      /** @type {number | null} from the last movement until the screen's pixels */ refinedMs: null,
      previews: 0,
      images: 0,
    };
  }

  /** The visible layers that need a coarse image of the present view: those without a bake, and others to compare with. */
  get withoutImage() {
    const { isDifference, visible } = this.viewport;
    const needed = visible.filter((layer) => !layer.hasBake);
    const layers = isDifference && needed.length ? visible : needed;
    return layers.filter((layer) => layer.coarse.version !== this.version);
  }

  /** Request images of a view that has changed. */
  viewChanged() {
    this.version++;
    this.movedAt = performance.now();
    this.stats.coarseMs = this.stats.firstTileMs = this.stats.refinedMs = null;
    this.visibleChanged();
    if (!this.withoutImage.length) this.tiles.stop();
  }

  /** Request images of the same view where other layers are visible. */
  visibleChanged() {
    this.refineLater();
    if (this.withoutImage.length) void this.preview();
  }

  /** Request images of the same view at rest, of which other parts are visible now. */
  refineLater() {
    this.isResting = false;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.isResting = true;
      void this.refine();
    }, REFINE_MS);
  }

  /** Request coarse images: one at a time, each of the view of its moment, until one is of the present view. */
  async preview() {
    if (this.isPreviewing) return;
    this.isPreviewing = true;
    try {
      for (let layers = this.withoutImage; layers.length; layers = this.withoutImage) {
        this.requested = this.version;
        const started = performance.now();
        if (!(await this.draw(layers, "coarse"))) continue;
        this.wholeAt = performance.now();
        this.adaptCoarse(this.wholeAt - started);
        this.stats.previews++;
        if (this.requested === this.version) this.stats.coarseMs = this.wholeAt - this.movedAt;
      }
    } catch (error) {
      this.viewport.setStatus(messageOf(error), "failed");
    } finally {
      this.isPreviewing = false;
    }
    if (this.isResting) void this.refine();
  }

  /**
   * Choose how many pixels the next coarse image has.
   *
   * @param {number} ms that the last one took
   */
  adaptCoarse(ms) {
    const { min, max } = COARSE_PIXELS;
    this.coarsePixels = clamp((this.coarsePixels * COARSE_MS) / Math.max(ms, 1), min, max);
  }

  async refine() {
    if (this.isPreviewing) {
      // The coarse image of the whole comes first; one of an earlier view is of no use any more.
      if (this.requested !== this.version) this.tiles.stop();
      return;
    }
    try {
      for (const level of this.finerLevels()) {
        if (!(await this.draw(this.viewport.visible, level))) return;
      }
      this.stats.images++;
      this.stats.refinedMs = performance.now() - this.movedAt;
      this.viewport.setStatus(`Field at ${sizeText(this.sizeOf("fine"))}${this.boundText()}`, "done");
    } catch (error) {
      this.viewport.setStatus(messageOf(error), "failed");
    }
  }

  /** @returns {Level[]} that are worth drawing of a view at rest */
  finerLevels() {
    const [medium, fine] = [this.sizeOf("medium"), this.sizeOf("fine")];
    return fine[0] * fine[1] > MIN_RATIO * medium[0] * medium[1] ? ["medium", "fine"] : ["fine"];
  }

  /** The screen's pixels per CSS pixel. */
  get screenRatio() {
    return window.devicePixelRatio || 1;
  }

  /**
   * Return the pixels of an image along both axes: the screen's at most.
   *
   * @param {Level} level
   * @returns {[number, number]}
   */
  sizeOf(level) {
    const { clientWidth, clientHeight } = this.viewport.surface;
    const { coarsePixels } = this;
    const maxPixels = { coarse: coarsePixels, medium: MEDIUM_RATIO * coarsePixels, fine: this.maxPixels }[
      level
    ];
    const bound = Math.sqrt(Math.min(maxPixels, this.maxPixels) / (clientWidth * clientHeight));
    const scale = Math.min(this.screenRatio, bound);
    return [Math.max(1, Math.floor(clientWidth * scale)), Math.max(1, Math.floor(clientHeight * scale))];
  }

  /** Return what the screen would show more of, where the server's setting bounds images. */
  boundText() {
    const { clientWidth, clientHeight } = this.viewport.surface;
    const screen = [clientWidth, clientHeight].map((n) => Math.floor(n * this.screenRatio));
    return this.sizeOf("fine")[0] < screen[0] ? ` of ${sizeText(screen)}` : "";
  }

  /**
   * Draw the fields of some layers.
   *
   * @param {Layer[]} layers
   * @param {Level} level
   * @returns {Promise<boolean>} false where a newer request took its place
   */
  draw(layers, level) {
    const { viewport, version } = this;
    const [width, height] = this.sizeOf(level);
    const isCoarse = level === "coarse";
    const spans = layers.map((layer) => (isCoarse ? [0, 1] : viewport.spanOf(layer)));
    const total = width * height * spans.reduce((sum, [start, end]) => sum + end - start, 0);
    const scenes = layers.map((layer) => layer.description.id);
    const { mode, crop } = viewport.viewPanel;
    const background = viewport.background === "white" ? 1 : 0;
    const { depthBox } = viewport;
    const options = { background, quick: isCoarse, spans, mode, crop: crop.box, depth_box: depthBox };
    const pose = viewport.camera.pose(width, height);
    /** @type {Set<Layer>} */
    const begun = new Set();
    let done = 0;
    return this.tiles.load(scenes, pose, options, (field, image, tile) => {
      const layer = layers[field];
      if (!begun.has(layer)) layer[level].begin(width, height, version);
      begun.add(layer);
      layer[level].add(image, tile);
      layer.showFor(this.version);
      viewport.difference?.schedule();
      if (!done && !isCoarse)
        this.stats.firstTileMs ??= performance.now() - Math.max(this.wholeAt, this.movedAt);
      done += tile.width * tile.height;
      const percent = Math.min(99, Math.floor((100 * done) / total));
      if (this.version === version)
        viewport.setStatus(`Field at ${sizeText([width, height])}, ${percent} %`, "busy");
    });
  }
}

/** @param {number[]} size */
function sizeText([width, height]) {
  return `${width} × ${height}`;
}
