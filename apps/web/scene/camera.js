// A turntable camera: what it looks at, from which side, how far and how upright. The axes of a pose are OpenCV's (y
// down).

/** @import { StartCamera } from "./bake.js" */
/** @import { Vec3 } from "./vector.js" */
import { add, clamp, cross, dot, norm, normalize, scale, subtract, vec3 } from "./vector.js";

/**
 * A pinhole camera for an image of width x height pixels.
 *
 * @typedef {object} Pose
 * @property {Vec3} right
 * @property {Vec3} down
 * @property {Vec3} forward
 * @property {Vec3} eye
 * @property {[number, number, number, number]} intrinsics fx, fy, cx, cy in pixels
 * @property {number} width
 * @property {number} height
 */

const MAX_PITCH = (89.5 * Math.PI) / 180;
const FOV = { min: 10, max: 120 }; // degrees
const LEVELLING = 2; // of a tilted camera by each radian that it is turned, in e-folds
const MIN_ROLL = 1e-3; // radians, below which a camera is upright

export class Turntable {
  /**
   * @param {StartCamera} start
   * @param {readonly number[]} aabb the scene's bounding box, minimum then maximum corner
   */
  constructor(start, aabb) {
    this.start = start;
    this.up = normalize(start.up);
    /** @type {Vec3} */
    const side = Math.abs(this.up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
    this.ahead = normalize(subtract(side, scale(this.up, dot(side, this.up))));
    this.aside = cross(this.up, this.ahead);
    this.focal = start.focal;
    this.extent = Math.max(aabb[3] - aabb[0], aabb[4] - aabb[1], aabb[5] - aabb[2]);
    this.target = start.target;
    this.distance = 1;
    this.pitch = 0;
    this.yaw = 0;
    this.roll = 0; // about the viewing direction, clockwise
    this.reset();
  }

  reset() {
    this.focal = this.start.focal;
    this.lookFrom(this.start.eye, this.start.target);
  }

  /** The field of view along the image's shorter side, in degrees. */
  get fov() {
    return (2 * Math.atan(0.5 / this.focal) * 180) / Math.PI;
  }

  set fov(degrees) {
    this.focal = 0.5 / Math.tan((clamp(degrees, FOV.min, FOV.max) * Math.PI) / 360);
  }

  /**
   * Look from one point to another.
   *
   * @param {Vec3} eye
   * @param {Vec3} target
   * @param {Vec3 | null} right axis of the image to the right; null for a camera that stands upright
   */
  lookFrom(eye, target, right = null) {
    const away = subtract(eye, target);
    this.target = vec3(target);
    this.distance = this.boundDistance(norm(away));
    this.pitch = clamp(Math.asin(clamp(dot(normalize(away), this.up), -1, 1)), -MAX_PITCH, MAX_PITCH);
    this.yaw = Math.atan2(dot(away, this.aside), dot(away, this.ahead));
    this.roll = 0;
    if (!right) return;
    const level = this.pose(1, 1);
    const roll = Math.atan2(dot(right, level.down), dot(right, level.right));
    if (Math.abs(roll) > MIN_ROLL) this.roll = roll;
  }

  /** @param {number} distance */
  boundDistance(distance) {
    return clamp(distance, 0.01 * this.extent, 20 * this.extent);
  }

  /** Return the unit vector from the target to the eye. */
  outward() {
    const level = add(scale(this.ahead, Math.cos(this.yaw)), scale(this.aside, Math.sin(this.yaw)));
    return add(scale(level, Math.cos(this.pitch)), scale(this.up, Math.sin(this.pitch)));
  }

  eye() {
    return add(this.target, scale(this.outward(), this.distance));
  }

  /**
   * Return the camera for an image of so many pixels.
   *
   * @param {number} width
   * @param {number} height
   * @returns {Pose}
   */
  pose(width, height) {
    const level = add(scale(this.aside, Math.cos(this.yaw)), scale(this.ahead, -Math.sin(this.yaw)));
    const forward = scale(this.outward(), -1);
    const right = add(scale(level, Math.cos(this.roll)), scale(cross(forward, level), Math.sin(this.roll)));
    const focal = this.focal * Math.min(width, height);
    return {
      right,
      down: cross(forward, right),
      forward,
      eye: this.eye(),
      intrinsics: [focal, focal, width / 2, height / 2],
      width,
      height,
    };
  }

  /**
   * Turn by angles in radians; a tilted camera becomes upright by and by.
   *
   * @param {number} dx
   * @param {number} dy
   */
  orbit(dx, dy) {
    this.yaw -= dx;
    this.pitch = clamp(this.pitch + dy, -MAX_PITCH, MAX_PITCH);
    this.roll *= Math.exp(-LEVELLING * Math.hypot(dx, dy));
    if (Math.abs(this.roll) < MIN_ROLL) this.roll = 0;
  }

  /** @param {number} factor of the distance */
  zoom(factor) {
    this.distance = this.boundDistance(this.distance * factor);
  }

  /**
   * Move by fractions of the image's shorter side, so that the target stays under the pointer.
   *
   * @param {number} dx
   * @param {number} dy
   */
  pan(dx, dy) {
    const { right, down } = this.pose(1, 1);
    const reach = this.distance / this.focal;
    this.target = subtract(this.target, add(scale(right, dx * reach), scale(down, dy * reach)));
  }

  /** Return the camera as text for the page's address. */
  toFragment() {
    const lengths = [...this.target, this.distance].map((value) => value.toPrecision(5));
    const [yaw, pitch, roll] = [this.yaw, this.pitch, this.roll].map((angle) =>
      ((angle * 180) / Math.PI).toFixed(2),
    );
    const fov = this.focal === this.start.focal && !this.roll ? [] : [this.fov.toFixed(2)];
    return `view=${[...lengths, yaw, pitch, ...fov, ...(this.roll ? [roll] : [])].join(",")}`;
  }

  /**
   * Take over the camera in an address, and return whether there is one.
   *
   * @param {string} fragment
   */
  fromFragment(fragment) {
    const match = /(?:^#?|&)view=([-+.e\d,]+)/.exec(fragment);
    const values = match ? match[1].split(",").map(Number) : [];
    if (![6, 7, 8].includes(values.length) || !values.every(Number.isFinite) || values[3] <= 0) return false;
    this.focal = this.start.focal;
    if (values.length > 6) this.fov = values[6];
    this.roll = ((values[7] ?? 0) * Math.PI) / 180;
    this.target = vec3(values);
    this.distance = this.boundDistance(values[3]);
    this.yaw = (values[4] * Math.PI) / 180;
    this.pitch = clamp((values[5] * Math.PI) / 180, -MAX_PITCH, MAX_PITCH);
    return true;
  }
}

/**
 * Return the pixel of a point, or null where it is behind the camera.
 *
 * @param {Pose} pose
 * @param {Vec3} point
 * @returns {[number, number] | null}
 */
export function project(pose, point) {
  const away = subtract(point, pose.eye);
  const depth = dot(away, pose.forward);
  if (depth <= 1e-6) return null;
  const [fx, fy, cx, cy] = pose.intrinsics;
  return [(fx * dot(away, pose.right)) / depth + cx, (fy * dot(away, pose.down)) / depth + cy];
}

/**
 * Return the unit direction of the ray through a pixel.
 *
 * @param {Pose} pose
 * @param {number} x
 * @param {number} y
 * @returns {Vec3}
 */
export function rayThrough(pose, x, y) {
  const [fx, fy, cx, cy] = pose.intrinsics;
  const across = scale(pose.right, (x - cx) / fx);
  return normalize(add(add(across, scale(pose.down, (y - cy) / fy)), pose.forward));
}
