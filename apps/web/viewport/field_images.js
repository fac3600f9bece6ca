// Requests images of the fields themselves: small ones of layers without a bake while the view moves, and once it rests
// a small one of those layers, then the large one of all, tile by tile.

/** @import { Layer } from "./layer.js" */
/** @import { Viewport } from "./viewport.js" */
import { messageOf } from "../scene/dom.js";
import { ServerTiles } from "./server_tiles.js";

const REFINE_MS = 180; // without movement until images of the fields are requested
const PREVIEW_PIXELS = 160 * 120; // of an image by the server while something moves
const MAX_PIXELS = 640 * 480; // of an image of the field

export class FieldImages {
  /** @param {Viewport} viewport */
  constructor(viewport) {
    this.viewport = viewport;
    this.tiles = new ServerTiles();
    this.version = 0; // counts changes of the view
    this.requested = 0; // version of the preview that is under way
    this.isPreviewing = false;
    this.timer = 0;
    this.stats = {
      /** @type {number | null} */ firstTileMs: null,
      /** @type {number | null} */ refinedMs: null,
      previews: 0,
      images: 0,
    };
  }

  /** The visible layers that have no whole image of the present view yet. */
  get withoutImage() {
    return this.viewport.visible.filter((layer) => !layer.hasBake && layer.coarse.complete !== this.version);
  }

  /** Request images of a view that has changed. */
  viewChanged() {
    this.version++;
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
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.refine(), REFINE_MS);
  }

  /** Request small images: one at a time, each of the view of its moment, until one is of the present view. */
  async preview() {
    if (this.isPreviewing) return;
    this.isPreviewing = true;
    try {
      for (let layers = this.withoutImage; layers.length; layers = this.withoutImage) {
        const version = (this.requested = this.version);
        if (!(await this.draw(layers, PREVIEW_PIXELS, true))) continue;
        this.stats.previews++;
        for (const layer of layers) layer.coarse.complete = version;
      }
    } catch (error) {
      this.viewport.setStatus(messageOf(error), "failed");
    } finally {
      this.isPreviewing = false;
    }
  }

  async refine() {
    if (this.isPreviewing) {
      if (this.requested !== this.version) this.tiles.stop(); // an image of an earlier view is of no use any more
      return this.refineLater(); // the small image of the whole comes first
    }
    const started = performance.now();
    try {
      if (!(await this.draw(this.viewport.visible, MAX_PIXELS, false))) return;
      this.stats.images++;
      this.stats.refinedMs = performance.now() - started;
      this.viewport.setStatus("Full quality", "done");
    } catch (error) {
      this.viewport.setStatus(messageOf(error), "failed");
    }
  }

  /**
   * Draw the fields of some layers in at most so many pixels.
   *
   * @param {Layer[]} layers
   * @param {number} maxPixels
   * @param {boolean} quick whether it is a preview
   * @returns {Promise<boolean>} false where a newer request took its place
   */
  draw(layers, maxPixels, quick) {
    const { viewport, version } = this;
    const { clientWidth, clientHeight } = viewport.surface;
    const started = performance.now();
    const scale = Math.min(1, Math.sqrt(maxPixels / (clientWidth * clientHeight)));
    const width = Math.max(1, Math.floor(clientWidth * scale));
    const height = Math.max(1, Math.floor(clientHeight * scale));
    const spans = layers.map((layer) => (quick ? [0, 1] : viewport.spanOf(layer)));
    const total = width * height * spans.reduce((sum, [start, end]) => sum + end - start, 0);
    const scenes = layers.map((layer) => layer.description.id);
    const options = { background: viewport.background === "white" ? 1 : 0, quick, spans };
    const pose = viewport.camera.pose(width, height);
    /** @type {Set<Layer>} */
    const begun = new Set();
    let done = 0;
    return this.tiles.load(scenes, pose, options, (field, image, tile) => {
      const layer = layers[field];
      if (!begun.has(layer)) layer.beginImage(quick, width, height, version);
      begun.add(layer);
      layer.addTile(quick, image, tile);
      layer.showFor(this.version);
      viewport.difference?.schedule();
      if (quick) return;
      if (!done) this.stats.firstTileMs = performance.now() - started;
      done += tile.width * tile.height;
      viewport.setStatus(`Full quality ${Math.min(99, Math.floor((100 * done) / total))} %`, "busy");
    });
  }
}
