// Images of the fields themselves as the server sends them: tile by tile, of the latest view only.

/** @import { Pose } from "../scene/camera.js" */
/** @import { Mode } from "../scene/shaders.js" */

const HEADER_BYTES = 14; // bytes of the payload, which field, x, y, width, height
const TEXT = 0xffff; // in place of a field: the payload is an error message

/** @typedef {{ x: number, y: number, width: number, height: number }} Tile */
/** @typedef {(field: number, image: ImageBitmap, tile: Tile) => void} OnTile */
/** @typedef {{ background: number, quick: boolean, spans: number[][], mode: Mode, crop: number[] | null }} TileOptions */

/** An error that the server reported, or that it does not answer. */
export class ServerError extends Error {
  /** @param {string} [message] */
  constructor(message) {
    super(message || "The server does not answer.");
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
    try {
      const body = { ...pose, ...options, scenes, viewer: this.viewer };
      const reader = await post("tiles", body, request.signal);
      for await (const { field, tile, payload } of tileMessages(reader)) {
        if (field === TEXT) throw new ServerError(new TextDecoder().decode(payload));
        const image = await createImageBitmap(new Blob([payload], { type: "image/png" }));
        if (this.request !== request) return false;
        onTile(field, image, tile);
        image.close();
      }
      return this.request === request;
    } catch (error) {
      if (this.request !== request || isAbort(error)) return false;
      throw error instanceof ServerError ? error : new ServerError();
    } finally {
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
