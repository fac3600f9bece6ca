// The difference of two layers: only where both have drawn the same camera, the field with the field and the bake with
// the bake.

/** @import { Pose } from "../scene/camera.js" */
/** @import { Layer } from "./layer.js" */
/** @import { Viewport } from "./viewport.js" */
import { context2d, makeCanvas } from "../scene/dom.js";

const NUMBERS_OF_POSE = /** @type {const} */ (["eye", "right", "down", "forward"]);

export class DifferenceCanvas {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Viewport} viewport with two layers
   * @param {number} gain that differences are multiplied by
   */
  constructor(canvas, viewport, gain) {
    this.canvas = canvas;
    this.viewport = viewport;
    this.gain = gain;
    this.work = makeCanvas(1, 1);
    this.isScheduled = false;
  }

  /** Draw anew before the next frame, if differences are shown. */
  schedule() {
    if (this.isScheduled || !this.viewport.isDifference) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      this.draw();
    });
  }

  draw() {
    const { clientWidth, clientHeight } = this.viewport.surface;
    Object.assign(this.canvas, { width: clientWidth, height: clientHeight }); // clears it
    const [first, second] = this.viewport.layers;
    if (showSameView(first, second)) {
      for (const layer of [first, second]) layer.drawing?.loop.refresh(); // it can be read in the same turn only
      this.add(first.bakeCanvas, second.bakeCanvas);
    }
    const { version } = this.viewport.images;
    for (const kind of /** @type {const} */ (["coarse", "medium", "fine"])) {
      const [one, other] = [first[kind], second[kind]];
      if (one.version === version && other.version === version) this.add(one.canvas, other.canvas);
    }
  }

  /**
   * Add the difference of two images, where both have pixels.
   *
   * @param {HTMLCanvasElement} one
   * @param {HTMLCanvasElement} other
   */
  add(one, other) {
    const { work } = this;
    const { width, height } = one;
    Object.assign(work, { width, height });
    const context = context2d(work, { willReadFrequently: true });
    for (const [image, operation] of /** @type {[HTMLCanvasElement, GlobalCompositeOperation][]} */ ([
      [one, "source-over"],
      [other, "difference"],
      [one, "destination-in"],
      [other, "destination-in"],
    ])) {
      context.globalCompositeOperation = operation;
      context.drawImage(image, 0, 0, width, height);
    }
    this.amplify(context);
    context2d(this.canvas).drawImage(work, 0, 0, this.canvas.width, this.canvas.height);
  }

  /**
   * Multiply by the gain; over white, equal pixels become white.
   *
   * @param {CanvasRenderingContext2D} context
   */
  amplify(context) {
    const image = context.getImageData(0, 0, this.work.width, this.work.height);
    const { data } = image; // clamps to [0, 255]
    const [offset, factor] = this.viewport.background === "white" ? [255, -this.gain] : [0, this.gain];
    for (let i = 0; i < data.length; i += 4) {
      data[i] = offset + factor * data[i];
      data[i + 1] = offset + factor * data[i + 1];
      data[i + 2] = offset + factor * data[i + 2];
    }
    context.putImageData(image, 0, 0);
  }
}

/**
 * Whether the bakes of both layers show one and the same view now: camera, image mode and crop.
 *
 * @param {Layer} first
 * @param {Layer} second
 */
function showSameView(first, second) {
  const one = first.drawing?.loop.shown;
  const other = second.drawing?.loop.shown;
  if (!one || !other || one.mode !== other.mode || one.crop?.join() !== other.crop?.join()) return false;
  if (Math.abs(focalOf(one.pose) - focalOf(other.pose)) > 1e-9) return false;
  return NUMBERS_OF_POSE.every((name) => one.pose[name].every((x, i) => x === other.pose[name][i]));
}

/**
 * Return the focal length over the image's shorter side.
 *
 * @param {Pose} pose
 */
function focalOf({ intrinsics, width, height }) {
  return intrinsics[0] / Math.min(width, height);
}
