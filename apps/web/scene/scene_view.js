// What every page with a scene has: a camera with gestures, a toolbar, panels, keys and the camera in the address.

/** @import { Turntable } from "./camera.js" */
/** @import { RadioGroup } from "./radio_group.js" */
/** @import { Background } from "./shaders.js" */
/** @import { Vec3 } from "./vector.js" */
import { prefersReducedMotion, query, queryAll, savePng } from "./dom.js";
import { Gestures } from "./gestures.js";
import { add, clamp, scale } from "./vector.js";

const GLIDE_MS = 260; // of the target to a new pivot
const ADDRESS_MS = 300; // without a frame until the address follows

/**
 * @typedef {object} ViewOptions
 * @property {Background[]} backgrounds that the visitor can choose from
 * @property {boolean} [usesAddress] whether the view is kept in an address
 * @property {Window} [address] the window whose address it is; this one by default
 */

/** The abstract base of pages that show scenes. */
export class SceneView {
  /**
   * @param {HTMLElement} root
   * @param {HTMLElement} surface receives gestures
   * @param {Turntable} camera
   * @param {ViewOptions} options
   */
  constructor(root, surface, camera, { backgrounds, usesAddress = true, address = window }) {
    this.root = root;
    this.surface = surface;
    this.camera = camera;
    this.backgrounds = backgrounds;
    this.usesAddress = usesAddress;
    this.address = address;
    const isDark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    /** @type {Background} */
    this.background = isDark ? "black" : "white";
    this.gestures = new Gestures(
      surface,
      camera,
      () => this.cameraMoved(),
      (x, y) => this.movePivot(x, y),
    );
    /** @type {Record<string, (() => void) | undefined>} */
    this.actions = {
      background: () => this.nextBackground(),
      reset: () => this.moveCamera(() => camera.reset()),
      screenshot: () => void this.screenshot(),
      fullscreen: () => this.toggleFullscreen(),
      about: () => this.togglePanel("about"),
    };
    /** @type {Record<string, string | undefined>} */
    this.shortcuts = {
      b: "background",
      r: "reset",
      s: "screenshot",
      f: "fullscreen",
      h: "about",
      "?": "about",
    };
    this.addressTimer = 0;
    if (usesAddress) camera.fromFragment(address.location.hash);
  }

  /** Return what the address says of the view. */
  toFragment() {
    return this.camera.toFragment();
  }

  /**
   * Take over the view in an address.
   *
   * @param {string} fragment
   */
  followAddress(fragment) {
    if (this.camera.fromFragment(fragment)) this.cameraMoved();
  }

  // -- what a subclass has to say ------------------------------------------------------------------------------------

  /** @returns {string} the name of what is shown, for files */
  get name() {
    throw new Error("abstract");
  }

  /** @returns {RadioGroup<any> | null} what the digits choose from */
  get modes() {
    throw new Error("abstract");
  }

  /** Redraw after the camera has moved. */
  cameraMoved() {
    throw new Error("abstract");
  }

  /** Redraw after the page's size has changed. */
  resized() {
    throw new Error("abstract");
  }

  /** Show the present background. */
  showBackground() {
    this.root.dataset.background = this.background;
    const button = query(this.root, "[data-act=background]", HTMLElement);
    button.setAttribute("aria-label", `Background: ${this.background}`);
  }

  /**
   * Return the point of the surface at a place of the window in CSS pixels, or null where there is none.
   *
   * @param {number} _x
   * @param {number} _y
   * @returns {Vec3 | null}
   */
  pick(_x, _y) {
    throw new Error("abstract");
  }

  /**
   * Return what is shown as an image.
   *
   * @returns {HTMLCanvasElement}
   */
  snapshot() {
    throw new Error("abstract");
  }

  // -- events --------------------------------------------------------------------------------------------------------

  /** Start to react to the visitor; a subclass calls this at the end of its constructor. */
  listen() {
    const { root } = this;
    new ResizeObserver(() => this.resized()).observe(this.surface);
    root.addEventListener("click", (event) => {
      const button = event.target instanceof Element && event.target.closest("button");
      if (button && button.dataset.act) this.actions[button.dataset.act]?.();
    });
    const listener = (/** @type {KeyboardEvent} */ event) => this.key(event);
    if (window === window.top)
      document.addEventListener("keydown", listener); // works before anything has the focus
    else root.addEventListener("keydown", listener);
    if (this.usesAddress) {
      const { address } = this;
      const follow = () => this.followAddress(address.location.hash);
      address.addEventListener("hashchange", follow);
      window.addEventListener("pagehide", () => address.removeEventListener("hashchange", follow));
    }
    query(root, "[data-act=fullscreen]", HTMLElement).hidden = !document.fullscreenEnabled;
    this.showBackground();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target instanceof HTMLSelectElement) return;
    const key = event.key.toLowerCase();
    const action = this.shortcuts[key];
    const mode = this.modes?.values[Number(key) - 1];
    if (action) this.actions[action]?.();
    else if (mode) this.modes?.choose(mode);
    else if (key === "escape") this.togglePanel(null);
    else if (event.target === document.body) return this.gestures.key(event);
    else return;
    event.preventDefault();
  }

  /**
   * Open a panel, or close it where it is open; all others are closed.
   *
   * @param {string | null} name
   */
  togglePanel(name) {
    for (const panel of queryAll(this.root, "[data-panel]", HTMLElement)) {
      panel.hidden = panel.dataset.panel !== name || !panel.hidden;
      const button = query(this.root, `[data-act=${panel.dataset.panel}]`, HTMLElement);
      button.setAttribute("aria-expanded", String(!panel.hidden));
    }
  }

  // -- camera --------------------------------------------------------------------------------------------------------

  /** @param {() => void} change */
  moveCamera(change) {
    this.gestures.stop();
    change();
    this.cameraMoved();
  }

  /**
   * Make what is visible at a place of the window the camera's pivot; the target glides there.
   *
   * @param {number} x
   * @param {number} y
   */
  movePivot(x, y) {
    const point = this.pick(x, y);
    if (!point) return this.announce("No surface at this point");
    const { camera } = this;
    const { target, distance } = camera;
    /** @type {number | null} */
    let start = null; // of the first frame
    const duration = prefersReducedMotion() ? 0 : GLIDE_MS;
    this.gestures.animate((now) => {
      start ??= now;
      const t = duration ? clamp((now - start) / duration, 0, 1) : 1;
      const eased = t * t * (3 - 2 * t);
      camera.target = add(scale(target, 1 - eased), scale(point, eased));
      camera.distance = distance;
      this.cameraMoved();
      return t < 1;
    });
    this.announce("Pivot moved");
  }

  /** Called after each frame: the address follows once the view rests. */
  frameDrawn() {
    clearTimeout(this.addressTimer);
    this.addressTimer = setTimeout(() => this.cameraRests(), ADDRESS_MS);
  }

  cameraRests() {
    const { address } = this;
    if (this.usesAddress) address.history.replaceState(address.history.state, "", `#${this.toFragment()}`);
  }

  // -- toolbar -------------------------------------------------------------------------------------------------------

  nextBackground() {
    const { backgrounds } = this;
    this.background = backgrounds[(backgrounds.indexOf(this.background) + 1) % backgrounds.length];
    this.showBackground();
    this.announce(`Background: ${this.background}`);
  }

  async screenshot() {
    await savePng(this.snapshot(), this.name);
    this.announce("Image saved");
  }

  toggleFullscreen() {
    if (document.fullscreenElement) void document.exitFullscreen();
    else void this.root.requestFullscreen?.();
  }

  /**
   * Announce a text to users of screen readers.
   *
   * @param {string} text
   */
  announce(text) {
    query(this.root, ".announcement", HTMLElement).textContent = text;
  }
}
