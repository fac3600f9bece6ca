// The file format of a bake: one JSON header and parts compressed by gzip, each with a sha256.

/** @import { Vec3 } from "./vector.js" */

/**
 * @typedef {object} BakePart
 * @property {string} name
 * @property {number} bytes of the decompressed content
 * @property {string} sha256 of the decompressed content
 * @property {string} [file] in the folder form
 */

/**
 * @typedef {object} BakeHeader
 * @property {string} format
 * @property {number} version
 * @property {string} name
 * @property {string} caption
 * @property {number[]} aabb minimum and maximum corner
 * @property {Vec3} bricks of the grid along each axis
 * @property {number} degree of the spherical harmonics
 * @property {[number, number]} log_range of a render step's optical depth
 * @property {number} zero code of a harmonic's coefficient 0
 * @property {number} harmonic_step coefficient between two codes
 * @property {number} render_step_size
 * @property {StartCamera} camera
 * @property {[string, string][]} facts
 * @property {BakePart[]} parts
 */

/**
 * @typedef {object} StartCamera
 * @property {Vec3} eye
 * @property {Vec3} target
 * @property {Vec3} up
 * @property {number} focal focal length over the shorter side of the image
 */

/** @typedef {{ header: BakeHeader, parts: Record<string, Uint8Array> }} Bake */

/**
 * Where a page finds its bake. `part` returns compressed bytes.
 *
 * @typedef {object} BakeSource
 * @property {() => Promise<BakeHeader>} header
 * @property {(part: BakePart) => Promise<Uint8Array<ArrayBuffer>>} part
 */

const FORMAT = "fieldmorph-bake";
const VERSION = 1;

const NO_SERVER =
  "The parts of this scene are files next to the page, and a browser reads those from a web server only. " +
  "Serve the folder, or export the scene to one .html file, which opens without a server.";

/** An error whose message is for the visitor. */
export class BakeError extends Error {}

/**
 * Return the source of a bake that is embedded in this page.
 *
 * @returns {BakeSource}
 */
export function embeddedSource() {
  const take = (/** @type {string} */ id) => {
    const element = document.getElementById(id);
    if (!element) throw new BakeError(`The scene is damaged: “${id}” is missing.`);
    return element;
  };
  return {
    header: async () => JSON.parse(take("bake-header").textContent),
    part: async ({ name }) => {
      const element = take(`bake-${name}`);
      const bytes = decodeBase64(element.textContent);
      element.remove(); // frees megabytes of text
      return bytes;
    },
  };
}

/**
 * Return the source of a bake in files below `base`.
 *
 * @param {string} base
 * @returns {BakeSource}
 */
export function folderSource(base = "./") {
  const read = async (/** @type {string} */ file) => {
    const answer = await fetch(base + file).catch((error) => {
      const reason = `${file} cannot be read: ${error.message}.`;
      throw new BakeError(location.protocol === "file:" ? NO_SERVER : reason);
    });
    if (!answer.ok) throw new BakeError(`${file} cannot be read (${answer.status}).`);
    return answer;
  };
  return {
    header: async () => (await read("scene.json")).json(),
    part: async ({ name, file = `${name}.bin` }) => new Uint8Array(await (await read(file)).arrayBuffer()),
  };
}

/**
 * @param {string} text
 * @returns {Uint8Array<ArrayBuffer>}
 */
function decodeBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/**
 * Read the header and verify all parts.
 *
 * @param {BakeSource} source
 * @param {(fraction: number, activity: string) => void} onProgress
 * @returns {Promise<Bake>}
 * @throws {BakeError} if the file has another format or is damaged
 */
export async function readBake(source, onProgress = () => {}) {
  const header = await source.header();
  if (header.format !== FORMAT) throw new BakeError("This file is not a fieldmorph scene.");
  if (header.version !== VERSION) {
    throw new BakeError(`This scene has format ${header.version}; this viewer reads ${VERSION}.`);
  }
  if (!("DecompressionStream" in window)) {
    throw new BakeError("This browser is too old: it cannot decompress gzip.");
  }
  const total = header.parts.reduce((sum, part) => sum + part.bytes, 0);
  /** @type {Record<string, Uint8Array>} */
  const parts = {};
  let done = 0;
  for (const part of header.parts) {
    parts[part.name] = await decompress(await source.part(part), part, (bytes) =>
      onProgress((done + bytes) / total, "Decompressing"),
    );
    done += part.bytes;
  }
  return { header, parts };
}

/**
 * @param {Uint8Array<ArrayBuffer>} packed
 * @param {BakePart} part
 * @param {(bytes: number) => void} onBytes
 * @returns {Promise<Uint8Array>}
 */
async function decompress(packed, part, onBytes) {
  const bytes = new Uint8Array(part.bytes);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const reader = stream.getReader();
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (size + value.length > bytes.length) throw new RangeError();
      bytes.set(value, size);
      size += value.length;
      onBytes(size);
    }
  } catch {
    size = -1;
  }
  if (size !== bytes.length || !(await hasDigest(bytes, part.sha256))) {
    throw new BakeError(`The scene is damaged: the checksum of its part “${part.name}” does not match.`);
  }
  return bytes;
}

/**
 * Return whether the sha256 matches. Browsers have no digests on pages served over plain http: true there.
 *
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {string} sha256
 * @returns {Promise<boolean>}
 */
async function hasDigest(bytes, sha256) {
  if (!window.crypto?.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}
