// Pictures of the true fields, as the server sends them: tile by tile, of the latest view only.

const HEAD_BYTES = 14; // bytes of the payload, which field, x, y, width, height
const TEXT = 0xffff; // in place of a field: the payload says why nothing more comes
const ASIDE_MS = 4000; // until a server that failed is asked again

class Truth {
  // `scenes` are ids. The random name keeps this page's pictures apart from those of any other.
  constructor(scenes) {
    this.scenes = scenes;
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    this.viewer = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    this.asking = null;
  }

  // Asks for a picture in place of what was asked for before; `onTile(which, bitmap, tile)` draws. True when the whole
  // of it has come, false where something newer was asked for. Raises what the server said.
  async picture(pose, options, onTile) {
    this.stop();
    const asking = (this.asking = new AbortController());
    try {
      const answer = await fetch("/pictures", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ ...pose, ...options, scenes: this.scenes, viewer: this.viewer }),
        signal: asking.signal,
      });
      if (!answer.ok) throw new ServerError((await answer.json().catch(() => ({}))).error);
      for await (const { which, tile, payload } of messages(answer.body.getReader())) {
        if (which === TEXT) throw new ServerError(new TextDecoder().decode(payload));
        const bitmap = await createImageBitmap(new Blob([payload], { type: "image/png" }));
        if (this.asking !== asking) return false;
        onTile(which, bitmap, tile);
        bitmap.close();
      }
      return this.asking === asking;
    } catch (error) {
      if (error.name === "AbortError" || this.asking !== asking) return false;
      throw error instanceof ServerError ? error : new ServerError();
    } finally {
      if (this.asking === asking) this.asking = null;
    }
  }

  stop() {
    this.asking?.abort();
    this.asking = null;
  }
}

class ServerError extends Error {
  constructor(told) {
    super(told || "The server does not answer.");
  }
}

// Cuts what comes into messages.
async function* messages(reader) {
  let left = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const bytes = new Uint8Array(left.length + value.length);
    bytes.set(left);
    bytes.set(value, left.length);
    let at = 0;
    while (bytes.length - at >= HEAD_BYTES) {
      const head = new DataView(bytes.buffer, at, HEAD_BYTES);
      const size = head.getUint32(0, true);
      if (bytes.length - at < HEAD_BYTES + size) break;
      const [which, x, y, width, height] = [4, 6, 8, 10, 12].map((offset) => head.getUint16(offset, true));
      const payload = bytes.subarray(at + HEAD_BYTES, at + HEAD_BYTES + size);
      yield { which, tile: { x, y, width, height }, payload };
      at += HEAD_BYTES + size;
    }
    left = bytes.slice(at);
  }
}
