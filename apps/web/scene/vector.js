// Vectors of three numbers.

/** @typedef {[number, number, number]} Vec3 */

/** @type {(a: Vec3, b: Vec3) => Vec3} */
export const add = (a, b) => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];

/** @type {(a: Vec3, b: Vec3) => Vec3} */
export const subtract = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];

/** @type {(a: Vec3, factor: number) => Vec3} */
export const scale = (a, factor) => [a[0] * factor, a[1] * factor, a[2] * factor];

/** @type {(a: Vec3, b: Vec3) => number} */
export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** @type {(a: Vec3, b: Vec3) => Vec3} */
export const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];

/** @type {(a: Vec3) => number} */
export const norm = (a) => Math.hypot(a[0], a[1], a[2]);

/** @type {(a: Vec3) => Vec3} */
export const normalize = (a) => scale(a, 1 / (norm(a) || 1));

/** @type {(x: number, low: number, high: number) => number} */
export const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

/**
 * Return three numbers of a longer list.
 * @type {(values: readonly number[], start?: number) => Vec3}
 */
export const vec3 = (values, start = 0) => [values[start], values[start + 1], values[start + 2]];
