// A canvas that shows a bake, and continues after the graphics were reset.

/** @import { Bake } from "./bake.js" */
/** @import { View } from "./render_loop.js" */
import { RenderLoop } from "./render_loop.js";
import { Renderer } from "./renderer.js";

/**
 * @typedef {object} CanvasEvents
 * @property {() => void} onFrame after each frame
 * @property {() => void} [onLost] when the graphics were reset
 * @property {() => void} [onRestored] when they are back
 * @property {(error: unknown) => void} [onError] when they cannot be restored
 */

export class SceneCanvas {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Bake} bake
   * @param {View} view
   * @param {CanvasEvents} events
   */
  constructor(canvas, bake, view, events) {
    this.canvas = canvas;
    this.bake = bake;
    this.events = events;
    this.renderer = new Renderer(canvas, bake);
    this.loop = new RenderLoop(canvas, this.renderer, view, events.onFrame);
    canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault(); // or it would not come back
      events.onLost?.();
    });
    canvas.addEventListener("webglcontextrestored", () => this.restore());
  }

  /**
   * Show another bake of the same scene.
   *
   * @param {Bake} bake
   */
  replace(bake) {
    const renderer = new Renderer(this.canvas, bake);
    this.loop.releaseTargets();
    this.renderer.dispose();
    this.bake = bake;
    this.renderer = renderer;
    this.loop.restart(renderer);
  }

  restore() {
    try {
      this.renderer = new Renderer(this.canvas, this.bake);
      this.loop.restart(this.renderer);
      this.events.onRestored?.();
    } catch (error) {
      this.events.onError?.(error);
    }
  }
}
