// Images of the fields themselves as the server sends them: tile by tile, of the latest view only.

/** @import { Pose } from "../scene/camera.js" */
/** @import { Mode } from "../scene/shaders.js" */

const HEADER_BYTES = 14; // bytes of the payload, which field, x, y, width, height
const TEXT = 0xffff; // in place of a field: the payload is an error message
const BATCH_MS = 100; // between two drawings of tiles: each makes the browser composite the whole page

/** @typedef {{ x: number, y: number, width: number, height: number }} Tile */
/** @typedef {(field: number, image: ImageBitmap, tile: Tile) => void} OnTile */
/** @typedef {{ field: number, image: ImageBitmap, tile: Tile }} DecodedTile */
/** @typedef {{ background: number, quick: boolean, spans: number[][], mode: Mode, crop: number[] | null, depth_box: number[] | null }} TileOptions */

/** An error that the server reported, or that it does not answer. */
export class ServerError extends Error {
  /** @param {string} [message] */
  constructor(message) {
    super(message || "The server does not answer.");
  }
}

/** Decoded tiles that are drawn together: the first at once, and those that follow BATCH_MS later. */
class TileBatch {
  /** @param {OnTile} onTile */
  constructor(onTile) {
    this.onTile = onTile;
    /** @type {DecodedTile[]} */
    this.waiting = [];
    this.timer = 0;
    this.drawnAt = -Infinity;
  }

  /** @param {DecodedTile} decoded */
  add(decoded) {
    this.waiting.push(decoded);
    const left = this.drawnAt + BATCH_MS - performance.now();
    if (left <= 0) this.draw();
    else if (this.waiting.length === 1) this.timer = setTimeout(() => this.draw(), left);
  }

  draw() {
    this.drawnAt = performance.now();
    for (const { field, image, tile } of this.waiting) this.onTile(field, image, tile);
    this.discard();
  }

  discard() {
    clearTimeout(this.timer);
    for (const { image } of this.waiting) image.close();
    this.waiting = [];
  }
}

export class ServerTiles {
  constructor() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    /** A random name that keeps the requests of this page apart from those of any other. */
    this.viewer = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    /** @type {AbortController | null} */
    this.request = null;
  }

  /**
   * Request an image of some scenes in place of what was requested before.
   *
   * @param {string[]} scenes their ids
   * @param {Pose} pose
   * @param {TileOptions} options
   * @param {OnTile} onTile draws a tile
   * @returns {Promise<boolean>} false where a newer request took its place
   * @throws {ServerError}
   */
  async load(scenes, pose, options, onTile) {
    this.stop();
    const request = (this.request = new AbortController());
    const batch = new TileBatch((field, image, tile) => {
      if (this.request === request) onTile(field, image, tile);
    });
    try {
      const body = { ...pose, ...options, scenes, viewer: this.viewer };
      const reader = await post("tiles", body, request.signal);
      for await (const { field, tile, payload } of tileMessages(reader)) {
        if (field === TEXT) {
          batch.draw();
          throw new ServerError(new TextDecoder().decode(payload));
        }
        const image = await createImageBitmap(new Blob([payload], { type: "image/png" }));
        batch.add({ field, image, tile });
        if (this.request !== request) return false;
      }
      batch.draw();
      return this.request === request;
    } catch (error) {
      if (this.request !== request || isAbort(error)) return false;
      throw error instanceof ServerError ? error : new ServerError();
    } finally {
      batch.discard();
      if (this.request === request) this.request = null;
    }
  }

  stop() {
    this.request?.abort();
    this.request = null;
  }
}

/**
 * Post JSON and return a reader of the answer.
 *
 * @param {string} path
 * @param {object} body
 * @param {AbortSignal} signal
 * @returns {Promise<ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>>}
 * @throws {ServerError} with the server's message
 */
export async function post(path, body, signal) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (!answer.ok || !answer.body) throw new ServerError((await answer.json().catch(() => ({}))).error);
  return answer.body.getReader();
}

/** @param {unknown} error */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/**
 * Split a stream into messages.
 *
 * @param {ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>} reader
 */
async function* tileMessages(reader) {
  let rest = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const bytes = new Uint8Array(rest.length + value.length);
    bytes.set(rest);
    bytes.set(value, rest.length);
    let start = 0;
    while (bytes.length - start >= HEADER_BYTES) {
      const header = new DataView(bytes.buffer, start, HEADER_BYTES);
      const size = header.getUint32(0, true);
      if (bytes.length - start < HEADER_BYTES + size) break;
      const [field, x, y, width, height] = [4, 6, 8, 10, 12].map((offset) => header.getUint16(offset, true));
      const payload = bytes.subarray(start + HEADER_BYTES, start + HEADER_BYTES + size);
      yield { field, tile: { x, y, width, height }, payload };
      start += HEADER_BYTES + size;
    }
    rest = bytes.slice(start);
  }
}
