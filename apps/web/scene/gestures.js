// Pointers, wheel and keys as movements of a turntable camera.

/** @import { Turntable } from "./camera.js" */
import { clamp } from "./vector.js";
import { prefersReducedMotion } from "./dom.js";

const RADIANS_PER_PIXEL = 0.006;
const MIN_SPEED = 0.0004; // radians a millisecond, below which inertia ends
const INERTIA_MS = 140;
const KEY_STEP = (5 * Math.PI) / 180;
const FOV_STEP = 5; // degrees
const TAP_MS = 320;
const TAP_PIXELS = 12;

/** @typedef {{ x: number, y: number }} Place in CSS pixels of the window */

export class Gestures {
  /**
   * @param {HTMLElement} element
   * @param {Turntable} camera
   * @param {() => void} onMove called after each change of the camera
   * @param {(x: number, y: number) => void} onPivot called with the place of a double click in CSS pixels
   */
  constructor(element, camera, onMove, onPivot) {
    this.element = element;
    this.camera = camera;
    this.onMove = onMove;
    this.onPivot = onPivot;
    /** @type {Map<number, Place>} */
    this.pointers = new Map();
    /** @type {(Place & { at: number, only: boolean }) | null} */
    this.pressed = null;
    /** @type {(Place & { at: number }) | null} */
    this.tapped = null;
    this.draggedAt = 0;
    this.speed = [0, 0];
    /** @type {number | null} */
    this.animation = null;
    element.addEventListener("pointerdown", (event) => this.press(event));
    element.addEventListener("pointermove", (event) => this.drag(event));
    element.addEventListener("pointerup", (event) => this.lift(event));
    element.addEventListener("pointercancel", (event) => this.lift(event));
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("keydown", (event) => this.key(event));
  }

  /** @param {PointerEvent} event */
  press(event) {
    if (event.pointerType === "mouse") event.preventDefault(); // no text is selected
    this.element.focus({ preventScroll: true });
    this.element.setPointerCapture(event.pointerId);
    this.stop();
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.pressed = {
      x: event.clientX,
      y: event.clientY,
      at: event.timeStamp,
      only: this.pointers.size === 1,
    };
    this.speed = [0, 0];
  }

  /** @param {PointerEvent} event */
  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const spread = this.spread();
    const [dx, dy] = [event.clientX - before.x, event.clientY - before.y];
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.pointers.size === 1) this.dragOne(event, dx, dy);
    else if (this.pointers.size === 2) {
      this.pan(dx / 2, dy / 2);
      if (spread > 0) this.camera.zoom(spread / Math.max(this.spread(), 1));
    }
    this.onMove();
  }

  /**
   * @param {PointerEvent} event
   * @param {number} dx
   * @param {number} dy
   */
  dragOne(event, dx, dy) {
    if (event.shiftKey || event.buttons & 6) this.pan(dx, dy);
    else {
      this.camera.orbit(dx * RADIANS_PER_PIXEL, dy * RADIANS_PER_PIXEL);
      const ms = Math.max(event.timeStamp - this.draggedAt, 1);
      this.speed = [dx, dy].map((d, i) => 0.5 * this.speed[i] + (0.5 * d * RADIANS_PER_PIXEL) / ms);
    }
    this.draggedAt = event.timeStamp;
  }

  /** @param {PointerEvent} event */
  lift(event) {
    if (!this.pointers.delete(event.pointerId) || event.type === "pointercancel") return;
    if (this.isTap(event)) {
      const { tapped } = this;
      if (tapped && event.timeStamp - tapped.at < TAP_MS && isNear(event, tapped)) {
        this.tapped = null;
        this.onPivot(event.clientX, event.clientY);
      } else this.tapped = { x: event.clientX, y: event.clientY, at: event.timeStamp };
    } else if (!this.pointers.size && event.timeStamp - this.draggedAt < 60) this.continueTurning();
  }

  /** @param {PointerEvent} event */
  isTap(event) {
    const { pressed } = this;
    if (!pressed?.only || event.button !== 0) return false;
    return isNear(event, pressed) && event.timeStamp - pressed.at < TAP_MS;
  }

  /** Continue to turn for a moment after the pointer was lifted. */
  continueTurning() {
    const isFast = () => Math.hypot(this.speed[0], this.speed[1]) > MIN_SPEED;
    if (prefersReducedMotion() || !isFast()) return;
    let last = performance.now();
    this.animate((now) => {
      const ms = Math.min(now - last, 50);
      last = now;
      this.camera.orbit(this.speed[0] * ms, this.speed[1] * ms);
      this.speed = this.speed.map((speed) => speed * Math.exp(-ms / INERTIA_MS));
      this.onMove();
      return isFast();
    });
  }

  /**
   * Call `step` before each frame of the browser until it returns false, or until `stop`.
   *
   * @param {(now: number) => boolean} step
   */
  animate(step) {
    this.stop();
    const run = (/** @type {number} */ now) => {
      this.animation = step(now) ? requestAnimationFrame(run) : null;
    };
    this.animation = requestAnimationFrame(run);
  }

  stop() {
    if (this.animation !== null) cancelAnimationFrame(this.animation);
    this.animation = null;
  }

  /** @param {WheelEvent} event */
  wheel(event) {
    event.preventDefault();
    this.stop();
    const pixels = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    if (event.shiftKey) this.pan(-event.deltaX * pixels, -event.deltaY * pixels);
    else
      this.camera.zoom(Math.exp(clamp(event.deltaY * pixels * (event.ctrlKey ? 0.01 : 0.0015), -0.5, 0.5)));
    this.onMove();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const arrow = ARROWS[event.key];
    if (arrow && event.shiftKey) this.camera.pan(0.05 * arrow[0], 0.05 * arrow[1]);
    else if (arrow) this.camera.orbit(KEY_STEP * arrow[0], KEY_STEP * arrow[1]);
    else if (event.key === "+" || event.key === "=") this.camera.zoom(0.9);
    else if (event.key === "-") this.camera.zoom(1 / 0.9);
    else if (event.key === "[") this.camera.fov -= FOV_STEP;
    else if (event.key === "]") this.camera.fov += FOV_STEP;
    else return;
    event.preventDefault();
    this.stop();
    this.onMove();
  }

  /**
   * @param {number} dx in CSS pixels
   * @param {number} dy
   */
  pan(dx, dy) {
    const side = Math.min(this.element.clientWidth, this.element.clientHeight);
    this.camera.pan(dx / side, dy / side);
  }

  /** Return the distance of two pointers in pixels, 0 for fewer. */
  spread() {
    const [a, b] = this.pointers.values();
    return b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
  }
}

/** @type {Record<string, [number, number] | undefined>} */
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/**
 * @param {PointerEvent} event
 * @param {Place} place
 */
function isNear(event, place) {
  return Math.hypot(event.clientX - place.x, event.clientY - place.y) < TAP_PIXELS;
}
