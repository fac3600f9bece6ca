// A part of a panel that crops a scene: two sliders along each axis, and the edges of the box over the image.

/** @import { Pose } from "./camera.js" */
import { project } from "./camera.js";
import { append, query, setPath } from "./dom.js";
import { vec3 } from "./vector.js";

const AXES = ["X", "Y", "Z"];
const STEPS = 200;
const MIN_GAP = 2 / STEPS; // between the two ends
const WHOLE = [0, 0, 0, 1, 1, 1];
const CORNERS = [0, 1, 2, 3, 4, 5, 6, 7]; // a bit for each axis
const EDGES = CORNERS.flatMap((i) => [1, 2, 4].filter((bit) => !(i & bit)).map((bit) => [i, i | bit]));

export class CropPanel {
  /**
   * @param {HTMLElement} root
   * @param {HTMLElement} panel with an element of class "rows"
   * @param {readonly number[]} aabb of the scene, minimum and maximum corner
   * @param {() => void} onChange
   */
  constructor(root, panel, aabb, onChange) {
    this.aabb = aabb;
    this.onChange = onChange;
    this.panel = panel;
    this.outline = query(root, ".outline path", SVGPathElement);
    this.fractions = WHOLE; // of the scene's box
    const rows = query(this.panel, ".rows", HTMLElement);
    const tracks = AXES.map((name, axis) => this.makeRow(rows, name, axis));
    this.tracks = tracks.map(({ track }) => track);
    this.sliders = [...tracks.map(({ low }) => low), ...tracks.map(({ high }) => high)];
  }

  /**
   * @param {HTMLElement} rows
   * @param {string} name
   * @param {number} axis
   */
  makeRow(rows, name, axis) {
    const row = append(rows, "div");
    append(row, "span", name);
    const track = append(row, "div", "", "track");
    const [low, high] = [0, 1].map((end) => {
      const slider = append(track, "input");
      Object.assign(slider, { type: "range", min: 0, max: STEPS, value: end * STEPS });
      slider.setAttribute("aria-label", `${name} ${end ? "to" : "from"}`);
      slider.addEventListener("input", () => this.moveEnd(axis, end));
      return slider;
    });
    return { track, low, high };
  }

  /**
   * @param {number} axis
   * @param {number} end 0 for the lower one
   */
  moveEnd(axis, end) {
    const fractions = [...this.fractions];
    const other = fractions[axis + 3 * (1 - end)];
    const value = this.sliders[axis + 3 * end].valueAsNumber / STEPS;
    fractions[axis + 3 * end] = end ? Math.max(value, other + MIN_GAP) : Math.min(value, other - MIN_GAP);
    this.set(fractions);
  }

  /** Show the whole scene. */
  reset() {
    this.set(WHOLE);
  }

  /** @param {number[]} fractions */
  set(fractions) {
    this.fractions = fractions;
    this.sliders.forEach((slider, i) => (slider.value = String(Math.round(fractions[i] * STEPS))));
    this.tracks.forEach((track, axis) => {
      track.style.setProperty("--from", String(fractions[axis]));
      track.style.setProperty("--to", String(fractions[axis + 3]));
    });
    this.onChange();
  }

  /** Return the box of what is shown, minimum then maximum corner in world units; null for all. */
  get box() {
    return this.fractions.every((fraction, i) => fraction === WHOLE[i]) ? null : this.corners();
  }

  corners() {
    const { aabb } = this;
    return this.fractions.map((fraction, i) => aabb[i % 3] + fraction * (aabb[(i % 3) + 3] - aabb[i % 3]));
  }

  /**
   * Draw the edges of the box while the panel is open.
   *
   * @param {Pose} pose
   */
  drawOutline(pose) {
    if (this.panel.hidden) return setPath(this.outline, "");
    const corners = this.corners();
    const places = CORNERS.map((i) =>
      project(pose, vec3([0, 1, 2].map((axis) => corners[axis + ((i >> axis) & 1 ? 3 : 0)]))),
    );
    let lines = "";
    for (const [i, j] of EDGES) {
      const [start, end] = [places[i], places[j]];
      if (!start || !end) continue;
      lines += `M${[start, end].map((place) => place.map((v) => v.toFixed(1)).join(" ")).join("L")}`;
    }
    setPath(this.outline, lines);
  }
}
