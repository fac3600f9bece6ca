// Pointers, wheel and keys, as movements of a turntable.

const RADIANS_PER_PIXEL = 0.006;
const GLIDE_STOPS = 0.0004; // radians a millisecond
const KEY_STEP = (5 * Math.PI) / 180;
const TAP_MS = 320;
const TAP_PIXELS = 12;

class Gestures {
  // `onMove` is called after each change of the camera, `onPivot(x, y)` with the place of a double click in CSS pixels.
  constructor(element, camera, onMove, onPivot) {
    Object.assign(this, { element, camera, onMove, onPivot });
    this.pointers = new Map();
    this.glide = null;
    const listen = (name, handler, options) => element.addEventListener(name, handler, options);
    listen("pointerdown", (event) => this.press(event));
    listen("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) listen(name, (event) => this.lift(event));
    listen("wheel", (event) => this.wheel(event), { passive: false });
    listen("contextmenu", (event) => event.preventDefault());
    listen("keydown", (event) => this.key(event));
  }

  press(event) {
    if (event.pointerType === "mouse") event.preventDefault(); // no text is selected
    this.element.focus({ preventScroll: true });
    this.element.setPointerCapture(event.pointerId);
    this.stop();
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.pressed = { x: event.clientX, y: event.clientY, at: event.timeStamp, only: this.pointers.size === 1 };
    this.speed = [0, 0];
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const spread = this.spread();
    const after = { x: event.clientX, y: event.clientY };
    const [dx, dy] = [after.x - before.x, after.y - before.y];
    this.pointers.set(event.pointerId, after);
    if (this.pointers.size === 1) {
      if (event.shiftKey || event.buttons & 6) this.pan(dx, dy);
      else {
        this.camera.orbit(dx * RADIANS_PER_PIXEL, dy * RADIANS_PER_PIXEL);
        const ms = Math.max(event.timeStamp - (this.draggedAt ?? 0), 1);
        this.speed = [dx, dy].map((d, i) => 0.5 * this.speed[i] + (0.5 * d * RADIANS_PER_PIXEL) / ms);
      }
      this.draggedAt = event.timeStamp;
    } else if (this.pointers.size === 2) {
      this.pan(dx / 2, dy / 2);
      if (spread > 0) this.camera.zoom(spread / Math.max(this.spread(), 1));
    }
    this.onMove();
  }

  lift(event) {
    if (!this.pointers.delete(event.pointerId) || event.type === "pointercancel") return;
    const { pressed } = this;
    const near = (p) => Math.hypot(event.clientX - p.x, event.clientY - p.y) < TAP_PIXELS;
    if (pressed?.only && near(pressed) && event.timeStamp - pressed.at < TAP_MS && event.button === 0) {
      if (this.tapped && event.timeStamp - this.tapped.at < TAP_MS && near(this.tapped)) {
        this.tapped = null;
        this.onPivot(event.clientX, event.clientY);
      } else this.tapped = { x: event.clientX, y: event.clientY, at: event.timeStamp };
    } else if (!this.pointers.size && event.timeStamp - (this.draggedAt ?? 0) < 60) this.slide();
  }

  // Goes on turning for a moment after the finger is gone.
  slide() {
    if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    let [vx, vy] = this.speed;
    let last = performance.now();
    const turn = (now) => {
      const ms = Math.min(now - last, 50);
      last = now;
      this.camera.orbit(vx * ms, vy * ms);
      const fade = Math.exp(-ms / 140);
      [vx, vy] = [vx * fade, vy * fade];
      this.onMove();
      this.glide = Math.hypot(vx, vy) > GLIDE_STOPS ? requestAnimationFrame(turn) : null;
    };
    if (Math.hypot(vx, vy) > GLIDE_STOPS) this.glide = requestAnimationFrame(turn);
  }

  stop() {
    if (this.glide !== null) cancelAnimationFrame(this.glide);
    this.glide = null;
  }

  wheel(event) {
    event.preventDefault();
    this.stop();
    const pixels = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    if (event.shiftKey) this.pan(-event.deltaX * pixels, -event.deltaY * pixels);
    else this.camera.zoom(Math.exp(clamp(event.deltaY * pixels * (event.ctrlKey ? 0.01 : 0.0015), -0.5, 0.5)));
    this.onMove();
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const arrow = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (arrow && event.shiftKey) this.camera.pan(0.05 * arrow[0], 0.05 * arrow[1]);
    else if (arrow) this.camera.orbit(KEY_STEP * arrow[0], KEY_STEP * arrow[1]);
    else if (event.key === "+" || event.key === "=") this.camera.zoom(0.9);
    else if (event.key === "-") this.camera.zoom(1 / 0.9);
    else return;
    event.preventDefault();
    this.stop();
    this.onMove();
  }

  pan(dx, dy) {
    const side = Math.min(this.element.clientWidth, this.element.clientHeight);
    this.camera.pan(dx / side, dy / side);
  }

  // Distance of two fingers in pixels.
  spread() {
    const [a, b] = this.pointers.values();
    return b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
  }
}
