// The pattern where nothing is drawn yet: diagonal stripes of gray, as `--pattern` in viewport.css.

/** @import { Background } from "../scene/shaders.js" */
import { context2d, makeCanvas } from "../scene/dom.js";

const SIDE = 12; // CSS pixels of one repetition along an axis

/**
 * Fill a rectangle with the pattern over the present background.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {Background} background
 * @param {number} width
 * @param {number} height
 */
export function fillPattern(context, background, width, height) {
  const tile = makeCanvas(SIDE, SIDE);
  const own = context2d(tile);
  own.fillStyle = background === "black" ? "black" : "white";
  own.fillRect(0, 0, SIDE, SIDE);
  own.strokeStyle = "rgb(128 128 128 / 22%)";
  own.lineWidth = SIDE / 2 / Math.SQRT2;
  for (const x of [-SIDE, 0, SIDE]) {
    own.moveTo(x, SIDE);
    own.lineTo(x + SIDE, 0);
  }
  own.stroke();
  context.fillStyle = context.createPattern(tile, "repeat") ?? own.fillStyle;
  context.fillRect(0, 0, width, height);
}
