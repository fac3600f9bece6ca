// The panel that renders videos: keyframes, length and size, progress, cancelling, the video.

/** @import { Vec3 } from "../scene/vector.js" */
/** @import { Viewport } from "./viewport.js" */
import { append, context2d, makeCanvas, query } from "../scene/dom.js";
import { ServerError, isAbort, post } from "./server_tiles.js";

/** @typedef {{ eye: Vec3, target: Vec3, roll: number }} Keyframe roll in radians */
/** @typedef {{ done: number, total: number, fraction: number, video?: string, error?: string }} VideoMessage */

const MIN_ESTIMATE_MS = 3000; // of rendering until the time that is left is shown

export class VideoPanel {
  /** @param {Viewport} viewport */
  constructor(viewport) {
    this.viewport = viewport;
    this.panel = query(viewport.root, "[data-panel=video]", HTMLElement);
    this.keyframeList = query(this.panel, "ol", HTMLElement);
    this.seconds = query(this.panel, "[name=seconds]", HTMLInputElement);
    this.size = query(this.panel, "[name=size]", HTMLSelectElement);
    this.addButton = this.button("addkey", () => this.addKeyframe());
    this.clearButton = this.button("clearkeys", () => this.clear());
    this.renderButton = this.button("render", () => void this.render());
    this.cancelButton = this.button("cancel", () => this.cancel());
    /** @type {Keyframe[]} */
    this.keyframes = [];
    /** @type {AbortController | null} */
    this.request = null;
    this.startedAt = 0;
    this.seconds.addEventListener("input", () => {
      query(this.panel, "output", HTMLElement).textContent = `${this.seconds.value} s`;
    });
  }

  /**
   * @param {string} name
   * @param {() => void} onClick
   */
  button(name, onClick) {
    const button = query(this.panel, `[data-act=${name}]`, HTMLButtonElement);
    button.addEventListener("click", onClick);
    return button;
  }

  addKeyframe() {
    const { camera } = this.viewport;
    /** @type {Keyframe} */
    const keyframe = { eye: camera.eye(), target: camera.target, roll: camera.roll };
    this.keyframes.push(keyframe);
    const item = append(this.keyframeList, "li");
    const remove = append(item, "button");
    Object.assign(remove, { type: "button", title: "Remove this keyframe" });
    remove.setAttribute("aria-label", `Remove keyframe ${this.keyframes.length}`);
    remove.append(this.thumbnail(96, 72));
    remove.addEventListener("click", () => {
      this.keyframes.splice(this.keyframes.indexOf(keyframe), 1);
      item.remove();
    });
  }

  /**
   * Return the middle of the viewport, which is what a video shows.
   *
   * @param {number} width
   * @param {number} height
   */
  thumbnail(width, height) {
    const { viewport } = this;
    const { clientWidth, clientHeight } = viewport.surface;
    const whole = viewport.snapshot(Math.round((height * clientWidth) / clientHeight), height);
    const canvas = makeCanvas(width, height);
    const context = context2d(canvas);
    context.fillStyle = viewport.background;
    context.fillRect(0, 0, width, height);
    context.drawImage(whole, (width - whole.width) / 2, 0);
    return canvas;
  }

  clear() {
    this.keyframes = [];
    this.keyframeList.replaceChildren();
  }

  /** Return what the server needs to know. */
  plan() {
    const { viewport } = this;
    const height = Number(this.size.value);
    return {
      scenes: viewport.visible.map((layer) => layer.description.id),
      keyframes: this.keyframes,
      up: viewport.camera.up,
      focal: viewport.camera.focal,
      seconds: Number(this.seconds.value),
      width: (height * 4) / 3,
      height,
      background: viewport.background === "white" ? 1 : 0,
      split: viewport.split,
    };
  }

  async render() {
    if (!this.keyframes.length) this.addKeyframe();
    const request = (this.request = new AbortController());
    this.startedAt = performance.now();
    this.showProgress("Starting …", 0);
    try {
      const reader = await post("videos", this.plan(), request.signal);
      for await (const line of linesOf(reader)) this.receive(JSON.parse(line));
      if (this.request) throw new ServerError("The server stopped before the video was finished.");
    } catch (error) {
      if (!isAbort(error)) this.finish((error instanceof ServerError ? error : new ServerError()).message);
    }
  }

  /** @param {VideoMessage} message */
  receive({ done, total, fraction, video: id, error }) {
    if (error) throw new ServerError(error);
    if (!id) return this.showProgress(`${frameText(done, total)}${this.timeLeft(fraction)}`, fraction);
    const result = query(this.panel, ".result", HTMLElement);
    const video = query(result, "video", HTMLVideoElement);
    result.hidden = false;
    video.src = query(result, "a", HTMLAnchorElement).href = `videos/${id}`;
    video.onloadeddata = () => result.scrollIntoView({ block: "end" });
    this.finish("The video is ready.");
  }

  /**
   * Return an estimate of the time that is left, once there is a basis for one.
   *
   * @param {number} fraction of the pixels that are rendered
   */
  timeLeft(fraction) {
    const elapsed = performance.now() - this.startedAt;
    if (elapsed < MIN_ESTIMATE_MS || fraction < 0.005) return "";
    const seconds = Math.ceil((elapsed * (1 - fraction)) / fraction / 1000);
    return ` · ${seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`} left`;
  }

  cancel() {
    this.request?.abort();
    this.finish("Cancelled.");
  }

  /**
   * @param {string} text
   * @param {number} fraction
   */
  showProgress(text, fraction) {
    const bar = query(this.panel, ".progress", HTMLElement);
    query(this.panel, ".rendering", HTMLElement).hidden = false;
    query(this.panel, ".rendering p", HTMLElement).textContent = text;
    bar.setAttribute("aria-valuenow", String(Math.floor(100 * fraction)));
    query(bar, "i", HTMLElement).style.width = `${100 * fraction}%`;
    this.showButtons(true);
  }

  /** @param {string} text */
  finish(text) {
    this.request = null;
    query(this.panel, ".rendering p", HTMLElement).textContent = text;
    query(this.panel, ".progress i", HTMLElement).style.width = "0";
    this.showButtons(false);
  }

  /** @param {boolean} isRendering */
  showButtons(isRendering) {
    this.renderButton.hidden = isRendering;
    this.cancelButton.hidden = !isRendering;
  }
}

/**
 * Return which frame is being rendered.
 *
 * @param {number} done
 * @param {number} total
 */
function frameText(done, total) {
  return done < total ? `Frame ${done + 1} of ${total}` : "Writing the file";
}

/**
 * Split a stream of text into lines.
 *
 * @param {ReadableStreamDefaultReader<Uint8Array>} reader
 */
async function* linesOf(reader) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}
