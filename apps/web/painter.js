// What is drawn when: while something moves, as many pixels as the device has time for; once it rests, all of them,
// in strips that leave the page responsive, and then some more samples of each.

const MOVING_MS = 30; // of a frame while something moves
const ROUGH_BELOW = 0.25; // of the pixels in that time: then a frame is rough and has more of them
const STRIP_MS = 24; // of one strip of a still picture
const REST_MS = 120; // without movement until the still picture begins
const STILL_SAMPLES = 6; // of a pixel, in the end
const CHECKER = 10; // CSS pixels of a square
const FEWEST = { pixels: 6000, share: 1 / 64 }; // of a frame, even if it takes longer
const IN_FLIGHT = 2; // frames that the graphics may have to do, so that they are never idle

class Painter {
  // `scene` tells `pose(width, height)`, `mode()`, `crop()` and `background()`; `onFrame` hears of every new picture.
  constructor(canvas, renderer, scene, onFrame) {
    Object.assign(this, { canvas, renderer, scene, onFrame });
    this.msPerPixel = { fine: 1e-3, rough: 5e-4 };
    this.quick = this.still = this.shown = null; // targets
    this.shownSize = [0, 0];
    this.size = [0, 0]; // of a still picture, in pixels
    this.inFlight = 0; // pictures that the graphics have not finished
    this.finishedAt = 0; // the last one that they have
    this.waiting = false;
    this.turn = 0; // counts changes
    this.samples = 0; // of the still picture that are complete
    this.rows = 0; // of the next one that are drawn
    this.dirty = false;
    this.restAt = 0;
    this.stats = { firstMs: null, stillMs: null, frames: 0, movingFrames: 0, movingMs: 0, scale: 1 };
  }

  // Something has changed; more of it may follow for `rest` milliseconds.
  touch(rest = REST_MS) {
    this.turn++;
    this.samples = this.rows = 0;
    this.dirty = true;
    this.restAt = performance.now() + rest;
    this.next();
  }

  // The same picture over another background. The drawing buffer is as large as the picture; the browser stretches it,
  // which costs less than doing so here.
  refresh() {
    if (!this.shown) return;
    const [width, height] = this.shownSize;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const square = Math.max(1, (CHECKER * width) / this.canvas.clientWidth);
    this.renderer.show(this.shown, width, height, this.scene.background(), null, square);
  }

  resize() {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    if (this.still && this.size[0] === width && this.size[1] === height) return;
    this.size = [width, height];
    for (const target of [this.quick, this.still]) if (target) this.renderer.release(target);
    this.quick = this.renderer.target(width, height);
    this.still = this.renderer.target(width, height);
    this.shown = null;
    this.touch(0);
  }

  // With the graphics of a renderer that takes the place of a lost one.
  restart(renderer) {
    this.renderer = renderer;
    this.quick = this.still = this.shown = null;
    this.inFlight = 0;
    this.resize();
  }

  next() {
    if (this.waiting || this.inFlight >= (this.dirty ? IN_FLIGHT : 1)) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.still && !this.renderer.gl.isContextLost()) this.paint();
    });
  }

  paint() {
    const left = this.restAt - performance.now();
    if (this.dirty) this.paintQuick();
    else if (left > 0) setTimeout(() => this.next(), left);
    else if (this.samples < this.wanted()) this.paintStrip();
  }

  // Means of depths over a surface's edge are nothing that one sees.
  wanted() {
    if (!this.renderer.fine || this.scene.mode() === "depth") return 1;
    return this.scene.samples?.() ?? STILL_SAMPLES;
  }

  paintQuick() {
    const full = this.size[0] * this.size[1];
    const look = MOVING_MS / this.msPerPixel.fine < ROUGH_BELOW * full ? "rough" : "fine";
    const pixels = Math.max(FEWEST.pixels, FEWEST.share * full, MOVING_MS / this.msPerPixel[look]);
    const scale = Math.min(1, Math.ceil(Math.sqrt(pixels / full) * 32) / 32); // in steps: a size that trembles is seen
    const size = this.size.map((n) => Math.max(1, Math.round(n * scale)));
    this.dirty = false;
    this.renderer.draw(this.quick, this.scene.pose(...size), { ...this.options(), rough: look === "rough" });
    this.show(this.quick, size);
    this.afterwards((now, ms) => {
      if (this.stats.firstMs !== null) this.learn(look, ms, size[0] * size[1]); // the first one takes preparation
      this.stats.firstMs ??= now;
      this.stats.scale = scale;
      if (now - this.lastQuick < 500) {
        this.stats.movingFrames++;
        this.stats.movingMs += now - this.lastQuick;
      }
      this.lastQuick = now;
    });
  }

  paintStrip() {
    const [width, height] = this.size;
    const { turn, samples } = this;
    const count = Math.max(8, Math.round(STRIP_MS / this.msPerPixel.fine / width));
    const rows = [this.rows, Math.min(height, this.rows + count)];
    const sampling = { rows, sample: sampleNumber(samples), share: 1 / (samples + 1) };
    this.renderer.draw(this.still, this.scene.pose(width, height), { ...this.options(), ...sampling });
    this.afterwards((_, ms) => {
      this.learn("fine", ms, width * (rows[1] - rows[0]));
      if (this.turn !== turn) return;
      this.rows = rows[1] % height;
      if (this.rows) return;
      this.samples++;
      this.show(this.still, [width, height]);
      if (this.samples === 1) this.stats.stillMs = performance.now() - this.restAt;
    });
  }

  options() {
    return { mode: this.scene.mode(), crop: this.scene.crop() };
  }

  show(target, size) {
    this.shown = target;
    this.shownSize = size;
    this.stats.frames++;
    this.refresh();
    this.onFrame();
  }

  // Calls `done(now, ms)`, then goes on, when the graphics have finished all of the above, which took them so long.
  afterwards(done) {
    const { gl } = this.renderer;
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    const started = performance.now();
    gl.flush();
    this.inFlight++;
    const look = () => {
      if (gl !== this.renderer.gl || gl.isContextLost()) return;
      if (gl.clientWaitSync(fence, 0, 0) === gl.TIMEOUT_EXPIRED) return void setTimeout(look, 1);
      gl.deleteSync(fence);
      const now = performance.now();
      const ms = now - Math.max(started, this.finishedAt);
      this.finishedAt = now;
      this.inFlight--;
      done(now, ms);
      this.next();
    };
    setTimeout(look, 1);
    if (this.dirty) this.next();
  }

  learn(look, ms, pixels) {
    this.msPerPixel[look] += 0.3 * (Math.max(ms, 1) / pixels - this.msPerPixel[look]);
  }
}

// Where the n-th sample of a pixel looks: the centre first, then a sequence that fills it evenly (Halton 1960).
function sampleNumber(n) {
  if (n === 0) return CENTRE;
  const halton = (index, base) => {
    let [value, share] = [0, 1];
    for (let i = index; i > 0; i = Math.floor(i / base)) value += (i % base) * (share /= base);
    return value;
  };
  return { x: halton(n, 2) - 0.5, y: halton(n, 3) - 0.5, step: halton(n, 5) };
}
