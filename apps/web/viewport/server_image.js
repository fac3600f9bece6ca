// Canvases with images of a field that the server renders.

/** @import { Tile } from "./server_tiles.js" */
import { context2d, makeCanvas } from "../scene/dom.js";

/** A canvas for tiles, and the view that they show. */
export class ServerImage {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.version = -1; // of the view; none yet
  }

  /**
   * Prepare for tiles of a view. Those of an earlier view go; those of the same view stay, since new ones equal them.
   *
   * @param {number} width
   * @param {number} height
   * @param {number} version
   */
  begin(width, height, version) {
    const { canvas } = this;
    if (this.version === version && canvas.width === width && canvas.height === height) return;
    Object.assign(canvas, { width, height }); // clears it
    this.version = version;
  }

  /**
   * @param {ImageBitmap} image
   * @param {Tile} tile
   */
  add(image, tile) {
    context2d(this.canvas).drawImage(image, tile.x, tile.y);
  }
}

/** An image that replaces the one before once all its tiles are there. */
export class WholeImage extends ServerImage {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    super(canvas);
    this.next = new ServerImage(makeCanvas(1, 1));
    this.missing = 0; // pixels of the next one
  }

  /**
   * @param {number} width
   * @param {number} height
   * @param {number} version
   */
  begin(width, height, version) {
    this.next.version = -1; // clears it in any case
    this.next.begin(width, height, version);
    this.missing = width * height;
  }

  /**
   * @param {ImageBitmap} image
   * @param {Tile} tile
   */
  add(image, tile) {
    const { canvas, version } = this.next;
    this.next.add(image, tile);
    this.missing -= tile.width * tile.height;
    if (this.missing > 0) return;
    super.begin(canvas.width, canvas.height, version);
    context2d(this.canvas).drawImage(canvas, 0, 0);
  }
}
