// Reads a bake: one JSON header, parts that are gzip'd and have a sha256 each, bricks laid out as textures.

const FORMAT = "fieldmorph-bake";
const VERSION = 1;
const BRICK = 8; // nodes that a brick owns along an edge
const EDGE = BRICK + 1; // nodes that it needs for its cells: one more, of the next brick
const FIRST_SLOT = 256; // index values below are distances to the nearest brick, see `indexOf`

const NO_SERVER =
  "The parts of this scene lie in files beside the page, and a browser reads those from a web server only. " +
  "Serve the folder, or export the scene to one .html file, which opens as it is.";

class BakeError extends Error {}

// Where a page finds its bake: in itself, or in files beside it. `part` gives gzip'd bytes.
function embeddedSource() {
  return {
    header: async () => JSON.parse(document.getElementById("bake-header").textContent),
    part: async ({ name }) => {
      const element = document.getElementById(`bake-${name}`);
      const bytes = base64Bytes(element.textContent);
      element.remove(); // megabytes of text
      return bytes;
    },
  };
}

function folderSource(base = "./") {
  const read = async (file) => {
    const answer = await fetch(base + file).catch((error) => {
      throw new BakeError(location.protocol === "file:" ? NO_SERVER : `${file} cannot be read: ${error.message}.`);
    });
    if (!answer.ok) throw new BakeError(`${file} cannot be read (${answer.status}).`);
    return answer;
  };
  return {
    header: async () => (await read("scene.json")).json(),
    part: async ({ file }) => new Uint8Array(await (await read(file)).arrayBuffer()),
  };
}

function base64Bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

// Header and verified parts by name. `onProgress` gets a share of 1 and what is being done.
async function readBake(source, onProgress = () => {}) {
  const header = await source.header();
  if (header.format !== FORMAT) throw new BakeError("This file holds no scene of fieldmorph.");
  if (header.version !== VERSION) {
    throw new BakeError(`This scene has format ${header.version}; this viewer reads ${VERSION}.`);
  }
  if (!("DecompressionStream" in window)) throw new BakeError("This browser is too old: it cannot unpack gzip.");
  const total = header.parts.reduce((sum, part) => sum + part.bytes, 0);
  const parts = {};
  let done = 0;
  for (const part of header.parts) {
    parts[part.name] = await unpack(await source.part(part), part, (bytes) =>
      onProgress((done + bytes) / total, "Unpacking"),
    );
    done += part.bytes;
  }
  return { header, parts };
}

async function unpack(packed, part, onBytes) {
  const bytes = new Uint8Array(part.bytes);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const reader = stream.getReader();
  let at = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (at + value.length > bytes.length) throw new RangeError();
      bytes.set(value, at);
      at += value.length;
      onBytes(at);
    }
  } catch {
    at = -1;
  }
  if (at !== bytes.length || !(await agrees(bytes, part.sha256))) {
    throw new BakeError(`The scene is damaged: its part “${part.name}” is not what was written.`);
  }
  return bytes;
}

// True as well where the browser keeps digests from pages that came over plain http.
async function agrees(bytes, sha256) {
  if (!window.crypto?.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}

// The textures of a bake: an index of bricks, one atlas of density codes and one for each harmonic.
//
// A brick's place in the atlas has EDGE^3 nodes, its own and those of the next bricks that its last cells touch.
// Colours of nodes without density are nought and `known` is 0 there, so that colours can be averaged over the rest.
function layOut({ header, parts }, maxTextureSize) {
  const grid = header.bricks;
  const occupied = setBits(parts.bricks, grid[0] * grid[1] * grid[2]);
  const count = occupied.length;
  if (parts.density.length !== count * BRICK ** 3) throw new BakeError("The scene is damaged: bricks are missing.");
  const slots = atlasShape(count, Math.floor(maxTextureSize / EDGE));
  const size = slots.map((n) => n * EDGE);
  const slotOf = new Int32Array(grid[0] * grid[1] * grid[2]).fill(-1);
  occupied.forEach((brick, slot) => (slotOf[brick] = slot));
  const rows = rowsOf(parts.density);
  const nodes = rows[rows.length - 1];
  const harmonics = (header.degree + 1) ** 2;
  const colour = parts.colour;
  if (colour.length !== 3 * harmonics * nodes) throw new BakeError("The scene is damaged: colours are missing.");

  const texels = size[0] * size[1] * size[2];
  const density = new Uint8Array(texels);
  const atlases = [new Uint8Array(4 * texels)];
  for (let h = 1; h < harmonics; h++) atlases.push(new Uint8Array(3 * texels).fill(header.zero));

  // Codes of harmonics lie close to `zero`: stretched over the byte they lose nothing to coarse filters.
  const { zero } = header;
  let furthest = 1;
  for (let i = 3 * nodes; i < colour.length; i++) furthest = Math.max(furthest, Math.abs(colour[i] - zero));
  const stretch = Math.max(1, Math.floor(127 / furthest));

  const own = (place, last) => (place < BRICK ? [0, place] : last ? null : [1, 0]);
  for (let slot = 0; slot < count; slot++) {
    const brick = occupied[slot];
    const bx = Math.floor(brick / (grid[1] * grid[2]));
    const by = Math.floor(brick / grid[2]) % grid[1];
    const bz = brick % grid[2];
    const sx = slot % slots[0];
    const sy = Math.floor(slot / slots[0]) % slots[1];
    const sz = Math.floor(slot / (slots[0] * slots[1]));
    for (let x = 0; x < EDGE; x++) {
      const ownX = own(x, bx === grid[0] - 1);
      if (!ownX) continue;
      for (let y = 0; y < EDGE; y++) {
        const ownY = own(y, by === grid[1] - 1);
        if (!ownY) continue;
        for (let z = 0; z < EDGE; z++) {
          const ownZ = own(z, bz === grid[2] - 1);
          if (!ownZ) continue;
          const owner = slotOf[((bx + ownX[0]) * grid[1] + by + ownY[0]) * grid[2] + bz + ownZ[0]];
          if (owner < 0) continue;
          const node = owner * BRICK ** 3 + (ownX[1] * BRICK + ownY[1]) * BRICK + ownZ[1];
          const code = parts.density[node];
          if (!code) continue;
          const texel = ((sz * EDGE + z) * size[1] + sy * EDGE + y) * size[0] + sx * EDGE + x;
          density[texel] = code;
          const row = rows[node];
          const base = atlases[0];
          base[4 * texel] = colour[row];
          base[4 * texel + 1] = colour[nodes + row];
          base[4 * texel + 2] = colour[2 * nodes + row];
          base[4 * texel + 3] = 255;
          for (let h = 1; h < harmonics; h++) {
            const atlas = atlases[h];
            for (let c = 0; c < 3; c++) {
              atlas[3 * texel + c] = zero + stretch * (colour[(3 * h + c) * nodes + row] - zero);
            }
          }
        }
      }
    }
  }
  return { grid, slots, size, index: indexOf(slotOf, grid), density, atlases, stretch, bricks: count, nodes };
}

function setBits(bytes, count) {
  const found = [];
  for (let i = 0; i < count; i++) if ((bytes[i >> 3] >> (i & 7)) & 1) found.push(i);
  return found;
}

// For each node the number of nodes with density before it, and at the end how many there are.
function rowsOf(density) {
  const rows = new Uint32Array(density.length + 1);
  for (let i = 0; i < density.length; i++) rows[i + 1] = rows[i] + (density[i] ? 1 : 0);
  return rows;
}

function atlasShape(count, most) {
  const side = Math.min(most, Math.max(1, Math.ceil(Math.cbrt(count))));
  const depth = Math.max(1, Math.ceil(count / (side * side)));
  if (depth > most) throw new BakeError("This scene is too large for the graphics of this device.");
  return [side, side, depth];
}

// Per brick, x fastest as textures have it: FIRST_SLOT + its slot, or, where it is empty, how many bricks away the
// nearest one is (Chebyshev), so that a ray may cross all those between at once.
function indexOf(slotOf, grid) {
  const [nx, ny, nz] = grid;
  const index = new Uint32Array(nx * ny * nz);
  const at = (x, y, z) => (z * ny + y) * nx + x;
  for (let x = 0; x < nx; x++)
    for (let y = 0; y < ny; y++)
      for (let z = 0; z < nz; z++) {
        const slot = slotOf[(x * ny + y) * nz + z];
        index[at(x, y, z)] = slot < 0 ? FIRST_SLOT - 1 : FIRST_SLOT + slot;
      }
  const distance = (x, y, z) => {
    if (x < 0 || y < 0 || z < 0 || x >= nx || y >= ny || z >= nz) return FIRST_SLOT - 1;
    const value = index[at(x, y, z)];
    return value < FIRST_SLOT ? value : 0;
  };
  // Two sweeps over half of the 26 neighbours each: exact for this distance (Rosenfeld and Pfaltz 1966).
  for (const step of [1, -1]) {
    for (let k = 0; k < nz; k++)
      for (let j = 0; j < ny; j++)
        for (let i = 0; i < nx; i++) {
          const [x, y, z] = step > 0 ? [i, j, k] : [nx - 1 - i, ny - 1 - j, nz - 1 - k];
          if (index[at(x, y, z)] >= FIRST_SLOT) continue;
          let nearest = index[at(x, y, z)];
          for (let dz = -1; dz <= 0; dz++)
            for (let dy = -1; dy <= (dz ? 1 : 0); dy++)
              for (let dx = -1; dx <= (dz || dy ? 1 : -1); dx++)
                nearest = Math.min(nearest, distance(x + step * dx, y + step * dy, z + step * dz) + 1);
          index[at(x, y, z)] = Math.min(nearest, FIRST_SLOT - 1);
        }
  }
  return index;
}
