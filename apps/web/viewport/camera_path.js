// Camera paths as files in the layout of nerfstudio's camera_path.json.

/** @import { Vec3 } from "../scene/vector.js" */
/** @import { VideoPanel } from "./video.js" */
import { messageOf, query, saveBlob } from "../scene/dom.js";
import { add, clamp, dot, norm, scale, subtract, vec3 } from "../scene/vector.js";

const MAX_KEYFRAMES = 24;

export class CameraPathFiles {
  /** @param {VideoPanel} video */
  constructor(video) {
    this.video = video;
    this.file = query(video.panel, "[name=path]", HTMLInputElement);
    video.button("savepath", () => void this.save());
    video.button("loadpath", () => this.file.click());
    this.file.addEventListener("change", () => void this.load());
  }

  /** Download the path that the keyframes make. */
  async save() {
    const { video } = this;
    if (!video.keyframes.length) video.addKeyframe();
    try {
      const answer = await fetch("camera_path", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(video.plan()),
      });
      if (!answer.ok) throw new Error((await answer.json()).error);
      saveBlob(await answer.blob(), "camera_path.json");
      this.say("Camera path saved.");
    } catch (error) {
      this.say(messageOf(error));
    }
  }

  /** Replace the keyframes by those of a file. */
  async load() {
    const { file, video } = this;
    const [chosen] = file.files ?? [];
    file.value = ""; // the same file can be chosen again
    if (!chosen) return;
    const { viewport } = video;
    try {
      const keyframes = readKeyframes(await chosen.text(), viewport.center, viewport.camera.extent);
      video.clear();
      for (const keyframe of keyframes) {
        const { eye, target, right } = keyframe;
        viewport.moveCamera(() => viewport.camera.lookFrom(eye, target, right));
        video.addKeyframe();
      }
      this.say(`${keyframes.length} keyframes loaded.`);
    } catch (error) {
      this.say(messageOf(error));
    }
  }

  /** @param {string} text */
  say(text) {
    query(this.video.panel, ".path-status", HTMLElement).textContent = text;
  }
}

/**
 * Return the keyframes of a camera path: its own, or frames of the path where it has none.
 *
 * @param {string} text JSON
 * @param {Vec3} center of the scene
 * @param {number} extent of the scene
 * @returns {{ eye: Vec3, target: Vec3, right: Vec3 }[]}
 */
function readKeyframes(text, center, extent) {
  /** @type {any} */
  let path;
  try {
    path = JSON.parse(text);
  } catch {
    path = null;
  }
  const own = (path?.keyframes ?? []).map((/** @type {any} */ one) => matrixOf(one.matrix));
  const frames = (path?.camera_path ?? []).map((/** @type {any} */ one) => matrixOf(one.camera_to_world));
  const matrices = own.length ? own : frames;
  const n = Math.min(matrices.length, MAX_KEYFRAMES);
  if (!n || matrices.some((/** @type {unknown} */ matrix) => matrix === null)) {
    throw new Error("This file is no camera path: keyframes with a matrix of 4 × 4 numbers are expected.");
  }
  return Array.from({ length: n }, (_, i) => {
    const matrix = matrices[n > 1 ? Math.round((i * (matrices.length - 1)) / (n - 1)) : 0];
    const eye = vec3([matrix[3], matrix[7], matrix[11]]);
    const right = vec3([matrix[0], matrix[4], matrix[8]]);
    const back = vec3([matrix[2], matrix[6], matrix[10]]); // the axes are OpenGL's
    const forward = scale(back, -1 / (norm(back) || 1));
    const distance = clamp(dot(subtract(center, eye), forward), 0.05 * extent, 4 * extent);
    return { eye, target: add(eye, scale(forward, distance)), right };
  });
}

/**
 * Return 16 numbers by rows; null where a value has none. Files of nerfstudio's first viewer have them as a text, by
 * columns.
 *
 * @param {unknown} value
 * @returns {number[] | null}
 */
function matrixOf(value) {
  const isText = typeof value === "string";
  const numbers = (isText ? JSON.parse(value) : value)?.flat?.(2) ?? [];
  if (numbers.length !== 16 || !numbers.every(Number.isFinite)) return null;
  return isText
    ? numbers.map((/** @type {number} */ _, /** @type {number} */ i) => numbers[(i % 4) * 4 + (i >> 2)])
    : numbers;
}
