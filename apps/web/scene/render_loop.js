// What is drawn when: while something moves, as many pixels as the device has time for; once the view rests, all of
// them, in strips that leave the page responsive, and then more samples of each.

/** @import { Pose } from "./camera.js" */
/** @import { Renderer } from "./renderer.js" */
/** @import { Background, Mode } from "./shaders.js" */
/** @import { Target } from "./webgl.js" */
import { sampleAt } from "./sampling.js";

/**
 * What is to be drawn, read before each frame.
 *
 * @typedef {object} View
 * @property {(width: number, height: number) => Pose} pose
 * @property {() => Mode} mode
 * @property {() => number[] | null} crop
 * @property {() => Background} background
 * @property {number} [samples] per pixel of an image at rest
 * @property {number[]} [depthBox] whose depths the color scale spans; the bake's own by default
 */

/** @typedef {"fine" | "rough"} Quality */

/**
 * What the canvas shows.
 *
 * @typedef {object} Shown
 * @property {Target} target
 * @property {number[]} size
 * @property {Pose} pose
 * @property {Mode} mode
 * @property {number[] | null} crop
 */

const MOVING_MS = 30; // of a frame while something moves
const MIN_FINE_FRACTION = 0.25; // of the pixels in that time: with less a frame is rough and has more of them
const STRIP_MS = 24; // of one strip of an image at rest
const REST_MS = 120; // without movement until the image at rest begins
const SAMPLES_AT_REST = 6; // per pixel
const CHECKER = 10; // CSS pixels of a square
const PREFERRED_PIXELS = 6000; // of a frame, even if it takes longer, but no longer than SLOW_MS
const PREFERRED_FRACTION = 1 / 64;
const SLOW_MS = 50; // of a frame that leaves 15 a second, with the browser's own work
const MIN_PIXELS = 1200; // of a frame, however long it takes
const MAX_IN_FLIGHT = 2; // frames queued on the GPU, so that it is never idle

export class RenderLoop {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Renderer} renderer
   * @param {View} view
   * @param {() => void} onFrame called after each frame
   */
  constructor(canvas, renderer, view, onFrame) {
    this.canvas = canvas;
    this.renderer = renderer;
    this.view = view;
    this.onFrame = onFrame;
    this.msPerPixel = { fine: 1e-3, rough: 5e-4 };
    this.size = [0, 0]; // of an image at rest, in pixels
    /** @type {{ moving: Target, rest: Target } | null} */
    this.targets = null;
    /** @type {Shown | null} */
    this.shown = null;
    this.generation = 0; // counts renderers
    this.inFlight = 0; // frames that the GPU has not finished
    this.finishedAt = 0; // time of the last one that it has
    this.scheduled = false;
    this.version = 0; // counts changes of the view
    this.samples = 0; // of the image at rest that are complete
    this.rows = 0; // of the next one that are drawn
    this.dirty = false;
    this.restAt = 0;
    /** @type {number | null} */
    this.lastMoving = null; // time of the last frame of the present movement
    this.stats = {
      /** @type {number | null} */ firstMs: null,
      /** @type {number | null} */ restMs: null,
      frames: 0,
      movingFrames: 0,
      movingMs: 0,
      scale: 1,
    };
  }

  /**
   * Redraw: the view has changed, and may continue to change for so many milliseconds.
   *
   * @param {number} rest
   */
  invalidate(rest = REST_MS) {
    this.version++;
    this.samples = this.rows = 0;
    this.dirty = true;
    this.restAt = performance.now() + rest;
    this.schedule();
  }

  /**
   * Show the same image over the present background. The drawing buffer is as large as the image; the browser scales
   * it, which costs less than scaling it here.
   */
  refresh() {
    if (!this.shown) return;
    const { target, size } = this.shown;
    const [width, height] = size;
    if (this.canvas.width !== width || this.canvas.height !== height)
      Object.assign(this.canvas, { width, height });
    const square = Math.max(1, (CHECKER * width) / this.canvas.clientWidth);
    this.renderer.show(target, width, height, this.view.background(), null, square);
  }

  /** Adapt to the canvas's size on the page. */
  resize() {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    if (this.targets && this.size[0] === width && this.size[1] === height) return;
    this.size = [width, height];
    this.releaseTargets();
    this.targets = {
      moving: this.renderer.makeTarget(width, height),
      rest: this.renderer.makeTarget(width, height),
    };
    this.invalidate(0);
  }

  /** Free what was drawn into. */
  releaseTargets() {
    if (this.targets) for (const target of Object.values(this.targets)) this.renderer.release(target);
    this.targets = this.shown = null;
  }

  /**
   * Continue with a renderer that replaces one whose context was lost, or whose bake is replaced.
   *
   * @param {Renderer} renderer
   */
  restart(renderer) {
    this.renderer = renderer;
    this.targets = this.shown = null;
    this.generation++;
    this.inFlight = 0;
    this.resize();
  }

  schedule() {
    if (this.scheduled || this.inFlight >= (this.dirty ? MAX_IN_FLIGHT : 1)) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      if (this.targets && !this.renderer.gl.isContextLost()) this.drawNext(this.targets);
    });
  }

  /** @param {{ moving: Target, rest: Target }} targets */
  drawNext({ moving, rest }) {
    const left = this.restAt - performance.now();
    if (this.dirty) this.drawMoving(moving);
    else if (left > 0) setTimeout(() => this.schedule(), left);
    else if (this.samples < this.samplesAtRest()) this.drawStrip(rest);
  }

  /** Return how many samples a pixel gets: one of depth, since a mean of depths over an edge is no surface. */
  samplesAtRest() {
    if (!this.renderer.hasHalfFloats || this.view.mode() === "depth") return 1;
    return this.view.samples ?? SAMPLES_AT_REST;
  }

  /**
   * Return how many pixels a frame has while something moves.
   *
   * @param {Quality} quality
   */
  movingPixels(quality) {
    const msPerPixel = this.msPerPixel[quality];
    const preferred = Math.max(PREFERRED_PIXELS, PREFERRED_FRACTION * this.size[0] * this.size[1]);
    return Math.max(MIN_PIXELS, MOVING_MS / msPerPixel, Math.min(preferred, SLOW_MS / msPerPixel));
  }

  /** @param {Target} target */
  drawMoving(target) {
    const full = this.size[0] * this.size[1];
    const quality = MOVING_MS / this.msPerPixel.fine < MIN_FINE_FRACTION * full ? "rough" : "fine";
    const pixels = this.movingPixels(quality);
    const scale = Math.min(1, Math.ceil(Math.sqrt(pixels / full) * 32) / 32); // in steps: small changes would flicker
    const [width, height] = this.size.map((n) => Math.max(1, Math.round(n * scale)));
    this.dirty = false;
    const options = { ...this.options(), rough: quality === "rough" };
    const pose = this.view.pose(width, height);
    this.renderer.draw(target, pose, options);
    this.show(target, pose);
    this.whenFinished((now, ms) => {
      const isFirst = this.stats.firstMs === null; // its time includes preparation
      if (!isFirst) this.recordCost(quality, ms, width * height);
      this.stats.firstMs ??= now;
      this.stats.scale = scale;
      if (this.lastMoving !== null) {
        this.stats.movingFrames++; // slow ones count, too
        this.stats.movingMs += now - this.lastMoving;
      }
      this.lastMoving = now;
    });
  }

  /** @param {Target} target */
  drawStrip(target) {
    const [width, height] = this.size;
    const { version, samples } = this;
    this.lastMoving = null;
    const count = Math.max(8, Math.round(STRIP_MS / this.msPerPixel.fine / width));
    const end = Math.min(height, this.rows + count);
    const nRows = end - this.rows;
    const pose = this.view.pose(width, height);
    this.renderer.draw(target, pose, {
      ...this.options(),
      rows: [this.rows, end],
      sample: sampleAt(samples),
      fraction: 1 / (samples + 1),
    });
    this.whenFinished((_, ms) => {
      this.recordCost("fine", ms, width * nRows);
      if (this.version !== version) return;
      this.rows = end % height;
      if (this.rows) return;
      this.samples++;
      this.show(target, pose);
      if (this.samples === 1) this.stats.restMs = performance.now() - this.restAt;
    });
  }

  options() {
    return { mode: this.view.mode(), crop: this.view.crop(), depthBox: this.view.depthBox };
  }

  /**
   * @param {Target} target
   * @param {Pose} pose
   */
  show(target, pose) {
    this.shown = { target, size: [pose.width, pose.height], pose, ...this.options() };
    this.stats.frames++;
    this.refresh();
    this.onFrame();
  }

  /**
   * Call `done` when the GPU has finished all commands so far, then draw what comes next.
   *
   * @param {(now: number, ms: number) => void} done gets the time, and how long the commands took
   */
  whenFinished(done) {
    const { generation } = this;
    const { gl } = this.renderer;
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    const started = performance.now();
    gl.flush();
    this.inFlight++;
    const poll = () => {
      if (!fence || generation !== this.generation || gl.isContextLost()) return;
      if (gl.clientWaitSync(fence, 0, 0) === gl.TIMEOUT_EXPIRED) return void setTimeout(poll, 1);
      gl.deleteSync(fence);
      const now = performance.now();
      const ms = now - Math.max(started, this.finishedAt);
      this.finishedAt = now;
      this.inFlight--;
      done(now, ms);
      this.schedule();
    };
    setTimeout(poll, 1);
    if (this.dirty) this.schedule();
  }

  /**
   * @param {Quality} quality
   * @param {number} ms
   * @param {number} pixels
   */
  recordCost(quality, ms, pixels) {
    this.msPerPixel[quality] += 0.3 * (Math.max(ms, 1) / pixels - this.msPerPixel[quality]);
  }
}
