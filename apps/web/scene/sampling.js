// Where in a pixel, and where in a render step, samples lie.

/** @typedef {{ x: number, y: number, step: number }} Sample */

/** @type {Sample} */
export const CENTER = { x: 0, y: 0, step: 0.5 };

/**
 * Return the n-th sample of a pixel: its center first, then a sequence that fills it evenly (Halton 1960).
 *
 * @param {number} n
 * @returns {Sample}
 */
export function sampleAt(n) {
  return n === 0 ? CENTER : { x: halton(n, 2) - 0.5, y: halton(n, 3) - 0.5, step: halton(n, 5) };
}

/**
 * @param {number} index
 * @param {number} base
 */
function halton(index, base) {
  let [value, digit] = [0, 1];
  for (let i = index; i > 0; i = Math.floor(i / base)) value += (i % base) * (digit /= base);
  return value;
}
