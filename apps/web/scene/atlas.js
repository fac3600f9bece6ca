// The textures of a bake: an index of bricks, one atlas of density codes and one for each harmonic.

/** @import { Bake } from "./bake.js" */
/** @import { Vec3 } from "./vector.js" */
import { BakeError } from "./bake.js";

/**
 * @typedef {object} Atlas
 * @property {Vec3} grid bricks of the scene along each axis
 * @property {Vec3} slots bricks of the atlas along each axis
 * @property {Vec3} size texels of the atlas along each axis
 * @property {Uint32Array} index of bricks, see `makeIndex`
 * @property {Uint8Array} density codes
 * @property {Uint8Array[]} harmonics RGBA of the constant one (A is 1 where there is density), RGB of the others
 * @property {number} stretch factor of the harmonics' codes
 */

export const BRICK = 8; // nodes of a brick along an edge
export const EDGE = BRICK + 1; // nodes that its cells need: one more, of the next brick
export const FIRST_SLOT = 256; // lower index values are distances to the nearest brick

/**
 * Lay out a bake for textures of at most so many texels along an edge.
 *
 * A brick's slot in the atlas has EDGE^3 nodes: its own and those of the next bricks that its last cells touch. Colors
 * of nodes without density are 0, and so is A there, so that colors can be averaged over the others.
 *
 * @param {Bake} bake
 * @param {number} maxTextureSize
 * @returns {Atlas}
 * @throws {BakeError} if parts are missing or the device's textures are too small
 */
export function makeAtlas(bake, maxTextureSize) {
  const { header, parts } = bake;
  const grid = header.bricks;
  const occupied = setBits(parts.bricks, grid[0] * grid[1] * grid[2]);
  if (parts.density.length !== occupied.length * BRICK ** 3) {
    throw new BakeError("The scene is damaged: bricks are missing.");
  }
  const slots = atlasShape(occupied.length, Math.floor(maxTextureSize / EDGE));
  const slotOf = new Int32Array(grid[0] * grid[1] * grid[2]).fill(-1);
  occupied.forEach((brick, slot) => (slotOf[brick] = slot));
  const rows = rowsOf(parts.density);
  const nHarmonics = (header.degree + 1) ** 2;
  if (parts.colour.length !== 3 * nHarmonics * rows[rows.length - 1]) {
    throw new BakeError("The scene is damaged: colours are missing.");
  }
  /** @type {Vec3} */
  const size = [slots[0] * EDGE, slots[1] * EDGE, slots[2] * EDGE];
  const texels = size[0] * size[1] * size[2];
  const harmonics = [new Uint8Array(4 * texels)];
  for (let h = 1; h < nHarmonics; h++) harmonics.push(new Uint8Array(3 * texels).fill(header.zero));
  const atlas = {
    grid,
    slots,
    size,
    index: makeIndex(slotOf, grid),
    density: new Uint8Array(texels),
    harmonics,
    stretch: stretchOf(parts.colour.subarray(3 * rows[rows.length - 1]), header.zero),
  };
  occupied.forEach((brick, slot) => fillSlot(atlas, bake, rows, slotOf, brick, slot));
  return atlas;
}

/**
 * Return a factor for codes of harmonics. They lie close to `zero`; spread over the byte they lose nothing to filters
 * of low precision.
 *
 * @param {Uint8Array} codes
 * @param {number} zero
 */
function stretchOf(codes, zero) {
  let furthest = 1;
  for (const code of codes) furthest = Math.max(furthest, Math.abs(code - zero));
  return Math.max(1, Math.floor(127 / furthest));
}

/**
 * Copy a brick, and the faces of its neighbors that it needs, to a slot of the atlas.
 *
 * @param {Atlas} atlas
 * @param {Bake} bake
 * @param {Uint32Array} rows
 * @param {Int32Array} slotOf
 * @param {number} brick
 * @param {number} slot
 */
function fillSlot(atlas, bake, rows, slotOf, brick, slot) {
  const { grid, slots, size } = atlas;
  const [bx, by, bz] = [
    Math.floor(brick / (grid[1] * grid[2])),
    Math.floor(brick / grid[2]) % grid[1],
    brick % grid[2],
  ];
  const [sx, sy, sz] = [
    slot % slots[0],
    Math.floor(slot / slots[0]) % slots[1],
    Math.floor(slot / (slots[0] * slots[1])),
  ];
  const ends = [bx, by, bz].map((place, axis) => (place === grid[axis] - 1 ? BRICK : EDGE)); // no next brick
  for (let x = 0; x < ends[0]; x++) {
    const nx = bx + (x >> 3); // the last node belongs to the next brick
    for (let y = 0; y < ends[1]; y++) {
      const ny = by + (y >> 3);
      for (let z = 0; z < ends[2]; z++) {
        const owner = slotOf[(nx * grid[1] + ny) * grid[2] + bz + (z >> 3)];
        if (owner < 0) continue;
        const node = owner * BRICK ** 3 + ((x & 7) * BRICK + (y & 7)) * BRICK + (z & 7);
        if (!bake.parts.density[node]) continue;
        const texel = ((sz * EDGE + z) * size[1] + sy * EDGE + y) * size[0] + sx * EDGE + x;
        fillTexel(atlas, bake, rows, node, texel);
      }
    }
  }
}

/**
 * @param {Atlas} atlas
 * @param {Bake} bake
 * @param {Uint32Array} rows
 * @param {number} node
 * @param {number} texel
 */
function fillTexel({ density, harmonics, stretch }, { header, parts }, rows, node, texel) {
  const { zero } = header;
  const { colour } = parts;
  const nodes = rows[rows.length - 1];
  const row = rows[node];
  density[texel] = parts.density[node];
  const base = harmonics[0];
  for (let c = 0; c < 3; c++) base[4 * texel + c] = colour[c * nodes + row];
  base[4 * texel + 3] = 255;
  for (let h = 1; h < harmonics.length; h++) {
    for (let c = 0; c < 3; c++) {
      harmonics[h][3 * texel + c] = zero + stretch * (colour[(3 * h + c) * nodes + row] - zero);
    }
  }
}

/**
 * Return the places of the bits that are set.
 *
 * @param {Uint8Array} bytes
 * @param {number} count of bits
 */
function setBits(bytes, count) {
  const found = [];
  for (let i = 0; i < count; i++) if ((bytes[i >> 3] >> (i & 7)) & 1) found.push(i);
  return found;
}

/**
 * Return for each node the number of nodes with density before it, and at the end how many there are.
 *
 * @param {Uint8Array} density
 */
function rowsOf(density) {
  const rows = new Uint32Array(density.length + 1);
  for (let i = 0; i < density.length; i++) rows[i + 1] = rows[i] + (density[i] ? 1 : 0);
  return rows;
}

/**
 * Return how many bricks an atlas for `count` bricks has along each axis.
 *
 * @param {number} count
 * @param {number} maxSide
 * @returns {Vec3}
 */
function atlasShape(count, maxSide) {
  const side = Math.min(maxSide, Math.max(1, Math.ceil(Math.cbrt(count))));
  const depth = Math.max(1, Math.ceil(count / (side * side)));
  if (depth > maxSide) throw new BakeError("This scene is too large for the graphics of this device.");
  return [side, side, depth];
}

/**
 * Return for each brick, x fastest as in textures, FIRST_SLOT + its slot, or, where it is empty, the Chebyshev distance
 * to the nearest brick, so that a ray can cross all those between at once.
 *
 * @param {Int32Array} slotOf
 * @param {Vec3} grid
 * @returns {Uint32Array}
 */
function makeIndex(slotOf, grid) {
  const [nx, ny, nz] = grid;
  const index = new Uint32Array(nx * ny * nz);
  for (let x = 0; x < nx; x++) {
    for (let y = 0; y < ny; y++) {
      for (let z = 0; z < nz; z++) {
        const slot = slotOf[(x * ny + y) * nz + z];
        index[(z * ny + y) * nx + x] = slot < 0 ? FIRST_SLOT - 1 : FIRST_SLOT + slot;
      }
    }
  }
  // Two sweeps over half of the 26 neighbors each are exact for this distance (Rosenfeld and Pfaltz 1966).
  for (const step of [1, -1]) {
    for (let i = 0; i < index.length; i++) sweepCell(index, grid, step > 0 ? i : index.length - 1 - i, step);
  }
  return index;
}

/** @type {Vec3[]} */
const HALF_OF_NEIGHBORS = [];
for (let dz = -1; dz <= 0; dz++) {
  for (let dy = -1; dy <= (dz ? 1 : 0); dy++) {
    for (let dx = -1; dx <= (dz || dy ? 1 : -1); dx++) HALF_OF_NEIGHBORS.push([dx, dy, dz]);
  }
}

/**
 * Lower the distance of an empty cell to one more than that of the neighbors that a sweep has passed.
 *
 * @param {Uint32Array} index
 * @param {Vec3} grid
 * @param {number} cell
 * @param {number} step direction of the sweep, 1 or -1
 */
function sweepCell(index, [nx, ny, nz], cell, step) {
  let nearest = index[cell];
  if (nearest >= FIRST_SLOT) return;
  const [cx, cy, cz] = [cell % nx, Math.floor(cell / nx) % ny, Math.floor(cell / (nx * ny))];
  for (const [dx, dy, dz] of HALF_OF_NEIGHBORS) {
    const [x, y, z] = [cx + step * dx, cy + step * dy, cz + step * dz];
    if (x < 0 || y < 0 || z < 0 || x >= nx || y >= ny || z >= nz) continue;
    const value = index[(z * ny + y) * nx + x];
    nearest = Math.min(nearest, value < FIRST_SLOT ? value + 1 : 1);
  }
  index[cell] = nearest;
}
