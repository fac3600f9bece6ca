// One scene in the viewport: its bake, drawn by this browser, under images of the field, drawn by the server. What is
// drawn of none of them for the present view stays transparent, over a pattern.

/** @import { StartCamera } from "../scene/bake.js" */
/** @import { Pose } from "../scene/camera.js" */
/** @import { View } from "../scene/render_loop.js" */
/** @import { Tile } from "./server_tiles.js" */
import { BakeError, folderSource, readBake } from "../scene/bake.js";
import { context2d, messageOf, query } from "../scene/dom.js";
import { SceneCanvas } from "../scene/scene_canvas.js";
import { requireWebgl } from "../scene/webgl.js";

const POLL_MS = 700;

/**
 * @typedef {object} BakeState
 * @property {"waiting" | "working" | "ready" | "failed" | "none"} state
 * @property {number | null} [fraction] that is done
 * @property {string} [reason] of a failure
 */

/**
 * What the server says of a scene.
 *
 * @typedef {object} SceneDescription
 * @property {string} id
 * @property {string} name
 * @property {[string, string][]} facts
 * @property {StartCamera} camera
 * @property {number[]} aabb
 * @property {BakeState} bake
 */

/** A canvas for tiles, and the view that they show. */
class ServerImage {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.version = -1; // of the view; none yet
    this.complete = -1; // version of the latest view of which all tiles are there
  }

  /**
   * @param {number} width
   * @param {number} height
   * @param {number} version
   */
  begin(width, height, version) {
    Object.assign(this.canvas, { width, height }); // clears it
    this.version = version;
  }
}

export class Layer {
  /**
   * @param {HTMLElement} element
   * @param {SceneDescription} description
   * @param {View} view
   * @param {() => void} onChange called when the state of the bake has changed
   * @param {() => void} onFrame
   */
  constructor(element, description, view, onChange, onFrame) {
    this.element = element;
    this.description = description;
    this.view = view;
    this.onChange = onChange;
    this.onFrame = onFrame;
    this.bakeCanvas = query(element, ".bake", HTMLCanvasElement);
    /** The server's images: a small one of the whole view, and tiles of a large one over it. */
    this.coarse = new ServerImage(query(element, ".coarse", HTMLCanvasElement));
    this.fine = new ServerImage(query(element, ".fine", HTMLCanvasElement));
    /** @type {SceneCanvas | null} */
    this.drawing = null;
  }

  get hasBake() {
    return this.drawing !== null;
  }

  get isBaking() {
    return ["waiting", "working"].includes(this.description.bake.state);
  }

  /** Draw the bake as soon as there is one. */
  async watch() {
    try {
      while (this.isBaking) {
        await new Promise((done) => setTimeout(done, POLL_MS));
        const answer = await fetch(`scenes/${this.description.id}`);
        if (answer.ok) this.description = await answer.json();
        this.onChange();
      }
      if (this.description.bake.state === "ready") await this.drawBake();
    } catch (error) {
      if (!(error instanceof BakeError)) console.warn(error);
      this.description.bake = { state: "failed", reason: messageOf(error) };
    }
    this.onChange();
  }

  async drawBake() {
    requireWebgl();
    const bake = await readBake(folderSource(`scenes/${this.description.id}/bake/`));
    this.drawing = new SceneCanvas(this.bakeCanvas, bake, this.view, {
      onFrame: () => {
        this.element.dataset.baked = "true"; // the canvas is black until then
        this.onFrame();
      },
      onError: (error) => console.warn(error),
    });
    this.drawing.loop.resize();
  }

  /**
   * Begin an image of a view, which replaces the one before.
   *
   * @param {boolean} quick whether it is the small one
   * @param {number} width
   * @param {number} height
   * @param {number} version of the view
   */
  beginImage(quick, width, height, version) {
    (quick ? this.coarse : this.fine).begin(width, height, version);
  }

  /**
   * @param {boolean} quick
   * @param {ImageBitmap} image
   * @param {Tile} tile
   */
  addTile(quick, image, tile) {
    context2d((quick ? this.coarse : this.fine).canvas).drawImage(image, tile.x, tile.y);
  }

  /**
   * Show what there is of a view. Over a bake nothing else is; without one the last small image stays, marked as stale.
   *
   * @param {number} version
   */
  showFor(version) {
    const { dataset } = this.element;
    const isStale = this.coarse.version !== version;
    this.coarse.canvas.hidden = isStale && this.hasBake;
    this.fine.canvas.hidden = this.fine.version !== version;
    dataset.stale = String(isStale && !this.hasBake && this.fine.version !== version);
    dataset.shows = this.fine.version === version ? "server" : this.hasBake ? "bake" : "preview";
  }

  /**
   * Draw what there is of a view onto a context of another size.
   *
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} height
   * @param {number} version of the view
   */
  drawOnto(context, width, height, version) {
    if (this.drawing?.loop.shown) {
      this.drawing.loop.refresh(); // a drawing buffer can be read in the same turn only
      context.drawImage(this.bakeCanvas, 0, 0, width, height);
    }
    for (const image of [this.coarse, this.fine]) {
      if (image.version === version) context.drawImage(image.canvas, 0, 0, width, height);
    }
  }

  /**
   * @param {Pose} pose
   * @param {number} x
   * @param {number} y
   */
  pick(pose, x, y) {
    return this.drawing ? this.drawing.renderer.pick(pose, x, y) : null;
  }
}
