// The viewport: one scene, or two on one camera. A bake is drawn while something moves; once the view rests, the server
// draws the field itself.

/** @import { SceneDescription } from "./layer.js" */
/** @import { Background } from "../scene/shaders.js" */
/** @import { StatusKind } from "./status.js" */
import { Turntable } from "../scene/camera.js";
import { context2d, makeCanvas, query, queryAll } from "../scene/dom.js";
import { RadioGroup } from "../scene/radio_group.js";
import { SceneView } from "../scene/scene_view.js";
import { clamp, vec3 } from "../scene/vector.js";
import { choicesText, readChoices, sharedWindow } from "./address.js";
import { CameraPathFiles } from "./camera_path.js";
import { DifferenceCanvas } from "./difference.js";
import { FieldImages } from "./field_images.js";
import { Layer } from "./layer.js";
import { followTraining } from "./live.js";
import { fillPattern } from "./pattern.js";
import { Status } from "./status.js";
import { showTitles } from "./titles.js";
import { TrainingCameras } from "./training_cameras.js";
import { VideoPanel } from "./video.js";
import { ViewPanel } from "./view_panel.js";

/** @typedef {"split" | "a" | "b" | "difference"} Comparison */

export class Viewport extends SceneView {
  /**
   * @param {HTMLElement} root with the markup of viewport.html
   * @param {SceneDescription[]} scenes one or two
   */
  constructor(root, scenes) {
    const camera = new Turntable(scenes[0].camera, scenes[0].aabb);
    const address = sharedWindow();
    super(root, query(root, ".touch", HTMLElement), camera, { backgrounds: ["white", "black"], address });
    const choices = readChoices(address.location.hash);
    const { aabb } = scenes[0];
    this.center = vec3([0, 1, 2].map((axis) => (aabb[axis] + aabb[axis + 3]) / 2));
    this.depthBox = boxAround(scenes.map((scene) => scene.aabb)); // one scale of depths for all scenes
    this.status = new Status(query(root, ".state", HTMLElement));
    this.divider = query(root, ".split", HTMLElement);
    this.split = 0.5; // fraction of the width where the second scene begins
    this.size = this.surfaceSize();
    const view = {
      pose: (/** @type {number} */ width, /** @type {number} */ height) => camera.pose(width, height),
      mode: () => this.viewPanel.mode,
      crop: () => this.viewPanel.crop.box,
      background: () => this.background,
      depthBox: this.depthBox,
      samples: 1, // the field itself comes instead of more
    };
    const elements = queryAll(root, ".layer", HTMLElement);
    this.layers = scenes.map((scene, i) => {
      const onChange = () => {
        for (const layer of this.layers) layer.showFor(this.images.version); // a bake takes the place of a stale image
        this.showStatus();
      };
      const isResting = () => this.images.isResting;
      return new Layer(elements[i], scene, view, { onChange, isResting, onFrame: () => this.frameDrawn() });
    });
    this.images = new FieldImages(this, Number(root.dataset.maxPixels));
    const gain = Number(root.dataset.gain);
    const canvas = query(root, ".difference", HTMLCanvasElement);
    this.difference = scenes.length > 1 ? new DifferenceCanvas(canvas, this, gain) : null;
    const modes = query(root, ".modes", HTMLElement);
    modes.hidden = scenes.length < 2;
    /** @type {RadioGroup<Comparison>} */
    this.comparison = new RadioGroup(
      modes,
      "compare",
      scenes.length > 1 ? (choices.comparison ?? "split") : "a",
      () => {
        this.showLayers();
        this.images.visibleChanged();
        this.setStatus(null, "moving");
        this.frameDrawn(); // the address follows
      },
    );
    this.viewPanel = new ViewPanel(this, aabb, choices.mode ?? "color");
    this.trainingCameras = new TrainingCameras(this);
    this.video = new VideoPanel(this);
    this.pathFiles = new CameraPathFiles(this.video);
    this.actions.video = () => this.togglePanel("video");
    this.shortcuts.m = "video";
    showTitles(root, scenes);
    this.surface.setAttribute("aria-label", `3-D view of ${scenes.map((scene) => scene.name).join(" and ")}`);
    this.listenToDivider();
    this.listen();
    this.showLayers();
    this.cameraMoved();
    for (const layer of this.layers) void layer.watch();
    void followTraining(this, scenes);
  }

  listenToDivider() {
    const { divider, surface } = this;
    divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
    divider.addEventListener("pointermove", (event) => {
      if (divider.hasPointerCapture(event.pointerId)) this.setSplit(event.clientX / surface.clientWidth);
    });
    divider.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.05, ArrowRight: 0.05 }[event.key];
      if (!step) return;
      this.setSplit(this.split + step);
      event.preventDefault();
      event.stopPropagation();
    });
  }

  // -- what is shown -------------------------------------------------------------------------------------------------

  get name() {
    return this.visible.map((layer) => layer.description.name).join("_");
  }

  get modes() {
    return this.layers.length > 1 ? this.comparison : null;
  }

  get isSplit() {
    return this.comparison.value === "split";
  }

  get isDifference() {
    return this.comparison.value === "difference";
  }

  /** Measurements of the server's images, for tests and benchmarks. */
  get stats() {
    return this.images.stats;
  }

  get visible() {
    const only = { a: 0, b: 1, split: null, difference: null }[this.comparison.value];
    return this.layers.filter((_, i) => only === null || i === only);
  }

  /**
   * Return the part of the width in which a layer is seen.
   *
   * @param {Layer} layer
   * @returns {[number, number]}
   */
  spanOf(layer) {
    if (!this.isSplit) return [0, 1];
    return layer === this.layers[0] ? [0, this.split] : [this.split, 1];
  }

  /** @param {number} fraction */
  setSplit(fraction) {
    this.split = clamp(fraction, 0, 1);
    this.showLayers();
    this.images.refineLater(); // only what was visible was drawn
  }

  frameDrawn() {
    super.frameDrawn();
    this.difference?.schedule();
  }

  /** Return the camera in pixels of the page. */
  screenPose() {
    return this.camera.pose(this.surface.clientWidth, this.surface.clientHeight);
  }

  /** Draw what lies over the images. */
  drawOverlays() {
    this.viewPanel.show();
    this.trainingCameras.draw();
  }

  /** @param {string | null} name */
  togglePanel(name) {
    super.togglePanel(name);
    this.drawOverlays();
  }

  toFragment() {
    return super.toFragment() + choicesText(this.modes && this.comparison.value, this.viewPanel.mode);
  }

  /** @param {string} fragment */
  followAddress(fragment) {
    const { comparison, mode } = readChoices(fragment);
    if (mode && mode !== this.viewPanel.mode) this.viewPanel.images.choose(mode);
    if (comparison && this.modes && comparison !== this.comparison.value) this.comparison.choose(comparison);
    super.followAddress(fragment);
  }

  nextBackground() {
    super.nextBackground();
    for (const layer of this.layers) layer.drawing?.loop.refresh();
    this.cameraMoved();
  }

  showLayers() {
    const { root, divider, visible } = this;
    root.dataset.compare = this.comparison.value;
    root.style.setProperty("--split", String(this.split));
    divider.hidden = !this.isSplit;
    divider.setAttribute("aria-valuenow", String(Math.round(100 * this.split)));
    for (const layer of this.layers) layer.element.hidden = !visible.includes(layer);
    this.difference?.schedule();
  }

  /**
   * @param {string | null} text
   * @param {StatusKind} kind
   */
  setStatus(text, kind) {
    this.status.set(text, kind);
    this.showStatus();
  }

  showStatus() {
    this.status.show(this.visible, this.isDifference ? (this.difference?.gain ?? null) : null);
  }

  // -- movement ------------------------------------------------------------------------------------------------------

  resized() {
    const size = this.surfaceSize();
    if (size === this.size) return; // an observer begins with a call
    this.size = size;
    for (const layer of this.layers) layer.drawing?.loop.resize();
    this.cameraMoved();
  }

  /** Return what images have to fit to, as a text. */
  surfaceSize() {
    const { clientWidth, clientHeight } = this.surface;
    return [clientWidth, clientHeight, window.devicePixelRatio].join();
  }

  cameraMoved() {
    this.images.viewChanged();
    for (const layer of this.layers) {
      layer.showFor(this.images.version);
      layer.drawing?.loop.invalidate();
    }
    this.difference?.schedule();
    this.drawOverlays();
    this.setStatus(null, "moving");
    super.frameDrawn(); // the address follows also where nothing is baked
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  pick(x, y) {
    const { visible } = this;
    const layer = visible[this.isSplit && x > this.split * this.surface.clientWidth ? 1 : 0];
    return layer.pick(this.screenPose(), x, y, this.viewPanel.crop.box);
  }

  /**
   * Return what is shown as an image of so many pixels.
   *
   * @param {number} width
   * @param {number} height
   */
  snapshot(width = this.surface.clientWidth, height = this.surface.clientHeight) {
    const canvas = makeCanvas(width, height);
    const context = context2d(canvas);
    fillPattern(context, this.background, width, height);
    if (this.isDifference && this.difference) {
      this.difference.draw();
      context.drawImage(this.difference.canvas, 0, 0, width, height);
      labelGain(context, this.difference.gain, this.background);
      return canvas;
    }
    for (const layer of this.visible) {
      const [start, end] = this.spanOf(layer);
      context.save();
      context.beginPath();
      context.rect(start * width, 0, (end - start) * width, height);
      context.clip();
      layer.drawOnto(context, width, height, this.images.version);
      context.restore();
    }
    return canvas;
  }
}

/**
 * Return the smallest box around boxes.
 *
 * @param {number[][]} boxes minimum then maximum corner
 */
function boxAround(boxes) {
  return boxes.reduce((one, other) =>
    one.map((x, i) => (i < 3 ? Math.min(x, other[i]) : Math.max(x, other[i]))),
  );
}

/**
 * Write what differences were multiplied by onto an image of them.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {number} gain
 * @param {Background} background
 */
function labelGain(context, gain, background) {
  context.font = "14px system-ui, sans-serif";
  context.fillStyle = background === "white" ? "#606060" : "#a0a0a0";
  context.fillText(`difference × ${gain}`, 10, context.canvas.height - 10);
}
