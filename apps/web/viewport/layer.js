// One scene in the viewport: its bake, drawn by this browser, under images of the field, drawn by the server.

/** @import { StartCamera } from "../scene/bake.js" */
/** @import { Pose } from "../scene/camera.js" */
/** @import { View } from "../scene/render_loop.js" */
import { BakeError, folderSource, readBake } from "../scene/bake.js";
import { context2d, makeCanvas, messageOf, query } from "../scene/dom.js";
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
    this.serverCanvas = query(element, ".server", HTMLCanvasElement);
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
        const answer = await fetch(`/scenes/${this.description.id}`);
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
    const bake = await readBake(folderSource(`/scenes/${this.description.id}/bake/`));
    this.drawing = new SceneCanvas(this.bakeCanvas, bake, this.view, {
      onFrame: this.onFrame,
      onError: (error) => console.warn(error),
    });
    this.drawing.loop.resize();
  }

  /**
   * Return the context to draw tiles of a new image on: a clear one over a bake, else with the image before.
   *
   * @param {number} width
   * @param {number} height
   */
  beginImage(width, height) {
    const context = context2d(this.serverCanvas);
    const before = this.hasBake ? null : copyOf(this.serverCanvas);
    Object.assign(this.serverCanvas, { width, height }); // clears it
    if (before) context.drawImage(before, 0, 0, width, height);
    return context;
  }

  /** Show the bake where there is one, else what the server drew last. */
  showBake() {
    if (this.hasBake) this.element.dataset.shows = "bake";
  }

  showServer() {
    this.element.dataset.shows = "server";
  }

  /**
   * Draw what is seen now onto a context of another size, by one call since the context may blend.
   *
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} height
   */
  drawOnto(context, width, height) {
    const canvas = makeCanvas(width, height);
    const own = context2d(canvas);
    if (this.drawing) {
      this.drawing.loop.refresh(); // a drawing buffer can be read in the same turn only
      own.drawImage(this.bakeCanvas, 0, 0, width, height);
    }
    if (this.element.dataset.shows === "server") own.drawImage(this.serverCanvas, 0, 0, width, height);
    context.drawImage(canvas, 0, 0);
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

/** @param {HTMLCanvasElement} canvas */
function copyOf(canvas) {
  const copy = makeCanvas(canvas.width, canvas.height);
  context2d(copy).drawImage(canvas, 0, 0);
  return copy;
}
