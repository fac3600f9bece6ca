// The cameras of the training images: frusta over the scene, a panel to go from one to the next.

/** @import { Pose } from "../scene/camera.js" */
/** @import { Vec3 } from "../scene/vector.js" */
/** @import { Viewport } from "./viewport.js" */
import { project } from "../scene/camera.js";
import { messageOf, query, setChanged, setPath } from "../scene/dom.js";
import { add, clamp, dot, scale, subtract, vec3 } from "../scene/vector.js";

/**
 * A training camera as the server describes it.
 *
 * @typedef {object} TrainingCamera
 * @property {Vec3} eye
 * @property {Vec3} right
 * @property {Vec3} down
 * @property {Vec3} forward
 * @property {number} across width of the image at distance 1
 * @property {number} along height of the image at distance 1
 */

const FRUSTUM = 0.08; // distance of its base, in lengths of the box
const CLICK_PIXELS = 6; // that a pointer may move in a click
const REACH_PIXELS = 16; // from a click to the camera that is meant
const CORNERS_OF_IMAGE = [
  [-0.5, -0.5],
  [0.5, -0.5],
  [0.5, 0.5],
  [-0.5, 0.5],
];

export class TrainingCameras {
  /** @param {Viewport} viewport */
  constructor(viewport) {
    this.viewport = viewport;
    this.panel = query(viewport.root, "[data-panel=cameras]", HTMLElement);
    this.toggle = query(this.panel, "[name=frusta]", HTMLInputElement);
    this.slider = query(this.panel, "[name=camera]", HTMLInputElement);
    this.text = query(this.panel, "output", HTMLElement);
    this.frusta = query(viewport.root, ".frusta .all", SVGPathElement);
    this.chosen = query(viewport.root, ".frusta .chosen", SVGPathElement);
    /** @type {TrainingCamera[]} */
    this.cameras = [];
    this.sceneId = ""; // of the cameras
    /** @type {{ x: number, y: number } | null} */
    this.pressed = null;
    const { actions, shortcuts, surface } = viewport;
    actions.cameras = () => void this.open();
    actions.gotocamera = () => this.goTo(this.index);
    actions.nextcamera = () => this.step(1);
    actions.previouscamera = () => this.step(-1);
    shortcuts.t = "cameras";
    this.toggle.addEventListener("change", () => this.draw());
    this.slider.addEventListener("input", () => this.draw());
    surface.addEventListener("pointerdown", ({ clientX, clientY }) => {
      this.pressed = { x: clientX, y: clientY };
    });
    surface.addEventListener("click", (event) => this.click(event));
  }

  get index() {
    return this.slider.valueAsNumber - 1;
  }

  get isShown() {
    return this.toggle.checked && !this.panel.hidden;
  }

  /** Open or close the panel, with the cameras of the first scene that is visible. */
  async open() {
    const { viewport } = this;
    viewport.togglePanel("cameras");
    const [layer] = viewport.visible;
    if (!this.panel.hidden && layer.description.id !== this.sceneId) {
      try {
        const answer = await fetch(`scenes/${layer.description.id}/cameras`);
        if (!answer.ok) throw new Error((await answer.json()).error);
        this.cameras = (await answer.json()).cameras;
        this.sceneId = layer.description.id;
        this.slider.max = String(Math.max(1, this.cameras.length));
        this.slider.value = "1";
      } catch (error) {
        viewport.announce(messageOf(error));
      }
    }
    this.draw();
  }

  /** @param {number} by */
  step(by) {
    const n = this.cameras.length;
    if (n) this.goTo((this.index + by + n) % n);
  }

  /**
   * Look from a camera, tilted as it is.
   *
   * @param {number} index
   */
  goTo(index) {
    const seen = this.cameras[index];
    if (!seen) return;
    this.slider.value = String(index + 1);
    const { viewport } = this;
    const { camera } = viewport;
    const [near, far] = [0.05 * camera.extent, 4 * camera.extent];
    const distance = clamp(dot(subtract(viewport.center, seen.eye), seen.forward), near, far);
    viewport.moveCamera(() => {
      camera.lookFrom(seen.eye, add(seen.eye, scale(seen.forward, distance)), seen.right);
      camera.focal = 1 / Math.min(seen.across, seen.along);
    });
    viewport.announce(`Camera ${index + 1}`);
  }

  /** @param {MouseEvent} event */
  click({ clientX: x, clientY: y }) {
    const { pressed } = this;
    if (!this.isShown || !pressed || Math.hypot(x - pressed.x, y - pressed.y) > CLICK_PIXELS) return;
    const pose = this.viewport.screenPose();
    const distances = this.cameras.map((camera) => {
      const place = project(pose, camera.eye);
      return place ? Math.hypot(place[0] - x, place[1] - y) : Infinity;
    });
    const nearest = distances.indexOf(Math.min(...distances));
    if (distances[nearest] < REACH_PIXELS) this.goTo(nearest);
  }

  draw() {
    const { cameras, index } = this;
    const n = cameras.length;
    setChanged(this.text, { textContent: n ? `${index + 1} of ${n}` : "none" });
    const pose = this.viewport.screenPose();
    const depth = FRUSTUM * this.viewport.camera.extent;
    const lines = this.isShown ? cameras.map((camera) => frustum(pose, camera, depth)) : [];
    setPath(this.frusta, lines.join(""));
    setPath(this.chosen, lines[index] ?? "");
  }
}

/**
 * Return the edges of a frustum as the path of an SVG; none where a part of it lies behind the camera.
 *
 * @param {Pose} pose
 * @param {TrainingCamera} camera
 * @param {number} depth
 */
function frustum(pose, { eye, right, down, forward, across, along }, depth) {
  const base = CORNERS_OF_IMAGE.map(([x, y]) => {
    const aside = add(scale(right, x * across), scale(down, y * along));
    return add(eye, scale(add(forward, aside), depth));
  });
  const places = [eye, ...base].map((point) => project(pose, vec3(point)));
  if (places.some((place) => place === null)) return "";
  const [tip, ...corners] = places.map((place) => (place ?? []).map((v) => v.toFixed(1)).join(" "));
  return `M${corners.join("L")}Z${corners.map((corner) => `M${tip}L${corner}`).join("")}`;
}
