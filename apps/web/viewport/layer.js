// One scene in the viewport: its bake, drawn by this browser, under images of the field, drawn by the server. What is
// drawn of none of them for the present view stays transparent, over a pattern.

/** @import { StartCamera } from "../scene/bake.js" */
/** @import { Pose } from "../scene/camera.js" */
/** @import { View } from "../scene/render_loop.js" */
import { BakeError, folderSource, readBake } from "../scene/bake.js";
import { messageOf, query, setChanged } from "../scene/dom.js";
import { SceneCanvas } from "../scene/scene_canvas.js";
import { requireWebgl } from "../scene/webgl.js";
import { ServerImage, WholeImage } from "./server_image.js";

const POLL_MS = 300;

/**
 * @typedef {object} BakeState
 * @property {"waiting" | "working" | "ready" | "failed" | "absent"} state
 * @property {number | null} [fraction] that is done
 * @property {number} [cells] along the longest side of the finest bake that there is
 * @property {string} [reason] of a failure
 */

/**
 * @typedef {object} LayerEvents
 * @property {() => void} onChange called when the state of the bake has changed
 * @property {() => void} onFrame
 * @property {() => boolean} isResting whether the view rests
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
 * @property {string | null} quality such as its PSNR to the teacher
 * @property {boolean} has_receipt
 * @property {number | null} revision of a field that is being trained; null of one that is not
 */

export class Layer {
  /**
   * @param {HTMLElement} element
   * @param {SceneDescription} description
   * @param {View} view
   * @param {LayerEvents} events
   */
  constructor(element, description, view, events) {
    this.element = element;
    this.description = description;
    this.view = view;
    this.events = events;
    this.bakeCanvas = query(element, ".bake", HTMLCanvasElement);
    /** The server's images: a coarse one of the whole view, and over it tiles of one and then of another with more pixels. */
    this.coarse = new WholeImage(query(element, ".coarse", HTMLCanvasElement));
    this.medium = new ServerImage(query(element, ".medium", HTMLCanvasElement));
    this.fine = new ServerImage(query(element, ".fine", HTMLCanvasElement));
    /** @type {SceneCanvas | null} */
    this.drawing = null;
    this.cells = 0; // of the bake that is drawn
  }

  get hasBake() {
    return this.drawing !== null;
  }

  get isBaking() {
    return ["waiting", "working"].includes(this.description.bake.state);
  }

  /** Draw the bake as soon as there is one, and each finer one that comes. */
  async watch() {
    try {
      for (;;) {
        const { cells } = this.description.bake;
        if (cells && (!this.drawing || cells !== this.cells)) await this.drawBake(cells);
        if (!this.isBaking) break;
        await pause(POLL_MS);
        const answer = await fetch(`scenes/${this.description.id}`);
        if (answer.ok) this.description = await answer.json();
        this.events.onChange();
      }
    } catch (error) {
      if (!(error instanceof BakeError)) console.warn(error);
      this.description.bake = { state: "failed", reason: messageOf(error) };
    }
    this.events.onChange();
  }

  /** @param {number} cells */
  async drawBake(cells) {
    requireWebgl();
    const bake = await readBake(folderSource(`scenes/${this.description.id}/bake/${cells}/`));
    if (this.drawing) {
      while (!this.events.isResting()) await pause(POLL_MS / 4); // the change takes longer than a frame
      this.drawing.replace(bake);
    } else {
      this.drawing = new SceneCanvas(this.bakeCanvas, bake, this.view, {
        onFrame: () => {
          setChanged(this.element.dataset, { baked: "true" }); // the canvas is black until then
          this.events.onFrame();
        },
        onError: (error) => console.warn(error),
      });
      this.drawing.loop.resize();
    }
    this.cells = cells;
    this.events.onChange();
  }

  /**
   * Show what there is of a view. Over a bake nothing else is; without one the last small image stays, marked as stale.
   *
   * @param {number} version
   */
  showFor(version) {
    const { coarse, hasBake } = this;
    const { dataset } = this.element;
    const finer = [this.medium, this.fine];
    const hasFiner = finer.some((image) => image.version === version);
    const isStale = coarse.version !== version;
    setChanged(coarse.canvas, { hidden: isStale && hasBake });
    for (const image of finer) setChanged(image.canvas, { hidden: image.version !== version });
    setChanged(dataset, {
      stale: String(isStale && !hasBake && !hasFiner),
      shows: hasFiner ? "server" : hasBake ? "bake" : "preview",
    });
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
    for (const image of [this.coarse, this.medium, this.fine]) {
      if (image.version === version) context.drawImage(image.canvas, 0, 0, width, height);
    }
  }

  /**
   * @param {Pose} pose
   * @param {number} x
   * @param {number} y
   * @param {number[] | null} crop
   */
  pick(pose, x, y, crop) {
    return this.drawing ? this.drawing.renderer.pick(pose, x, y, crop) : null;
  }
}

/**
 * Wait.
 *
 * @param {number} ms
 */
function pause(ms) {
  return new Promise((done) => setTimeout(done, ms));
}
