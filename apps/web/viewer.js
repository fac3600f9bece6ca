// The page round the picture: bar, panels, keys, states. One viewer lives in one element; a page may have several.

const GREYS = ["white", "black", "checker"];
const AXES = ["X", "Y", "Z"];
const CROP_STEPS = 200;

class Viewer {
  // `root` holds the markup of viewer.html; `ready` is kept when the first picture is on the screen.
  constructor(root, source, { fragment = true } = {}) {
    this.root = root;
    this.canvas = this.find(".picture");
    this.usesFragment = fragment;
    this.mode = "colour";
    const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    this.background = dark ? "black" : "white";
    this.shares = [0, 0, 0, 1, 1, 1]; // of the box that is shown
    this.ready = this.load(source).catch((error) => {
      this.fail(error);
      throw error;
    });
    this.ready.catch(() => {}); // told on the page; whoever waits hears of it as well
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  async load(source) {
    if (!document.createElement("canvas").getContext("webgl2")) throw new BakeError(NO_WEBGL);
    this.bake = await readBake(source, (share, what) => this.progress(share, what));
    const { header } = this.bake;
    this.find("h1").textContent = header.name;
    this.find(".title p").textContent = header.caption;
    this.canvas.setAttribute("aria-label", `3-D view of ${header.name}`);
    this.camera = new Turntable(header.camera, header.aabb);
    if (this.usesFragment) this.camera.fromFragment(location.hash);
    this.progress(1, "Laying out");
    await new Promise((done) => setTimeout(done)); // lets the page say so
    this.renderer = new Renderer(this.canvas, this.bake);
    await new Promise((done) => {
      this.painter = new Painter(this.canvas, this.renderer, this.scene(), () => {
        this.drawFrame();
        this.rest();
        done();
      });
      this.listen();
      this.painter.resize();
    });
    this.root.dataset.state = "ready";
  }

  // What the painter asks.
  scene() {
    return {
      pose: (width, height) => this.camera.pose(width, height),
      mode: () => this.mode,
      crop: () => this.crop(),
      background: () => this.background,
    };
  }

  // Counters for people and tests: milliseconds, and frames a second while something moves.
  get stats() {
    const { stats } = this.painter;
    const [width, height] = this.painter.size;
    const framesPerSecond = stats.movingMs ? (1000 * stats.movingFrames) / stats.movingMs : null;
    return { ...stats, framesPerSecond, width, height, samples: this.painter.samples };
  }

  listen() {
    const { root, canvas } = this;
    this.gestures = new Gestures(canvas, this.camera, () => this.painter.touch(), (x, y) => this.pivot(x, y));
    new ResizeObserver(() => this.painter.resize()).observe(canvas);
    canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault(); // or it would not come back
      this.cover("One moment", "The graphics of this device were reset; the scene is being restored.");
    });
    canvas.addEventListener("webglcontextrestored", () => this.restore());
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button?.dataset.mode) this.setMode(button.dataset.mode);
      if (button?.dataset.act) this.act(button.dataset.act);
    });
    const own = window === window.top ? document : root; // a page's keys work before anything has the focus
    own.addEventListener("keydown", (event) => this.key(event));
    if (this.usesFragment) {
      window.addEventListener("hashchange", () => {
        if (this.camera.fromFragment(location.hash)) this.painter.touch();
      });
    }
    this.find("[data-act=fullscreen]").hidden = !document.fullscreenEnabled;
    this.buildCrop();
    this.showFacts();
    this.showChoices();
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const modes = { 1: "colour", 2: "depth", 3: "opacity" };
    const acts = { b: "background", c: "crop", r: "reset", s: "screenshot", f: "fullscreen", h: "about", "?": "about" };
    const key = event.key.toLowerCase();
    if (modes[key]) this.setMode(modes[key]);
    else if (acts[key]) this.act(acts[key]);
    else if (key === "escape") this.openPanel(null);
    else if (event.target.role === "radio" && key.startsWith("arrow")) this.stepMode(key);
    else if (event.target === document.body) return this.gestures.key(event);
    else return;
    event.preventDefault();
  }

  act(name) {
    const acts = {
      background: () => this.setBackground(GREYS[(GREYS.indexOf(this.background) + 1) % GREYS.length]),
      crop: () => this.openPanel("crop"),
      about: () => this.openPanel("about"),
      uncrop: () => this.setCrop([0, 0, 0, 1, 1, 1]),
      reset: () => this.move(() => this.camera.reset()),
      screenshot: () => this.screenshot(),
      fullscreen: () => this.fullscreen(),
    };
    acts[name]();
  }

  setMode(mode) {
    this.mode = mode;
    this.showChoices();
    this.painter.touch(0);
    this.say(`${mode[0].toUpperCase()}${mode.slice(1)}`);
  }

  stepMode(key) {
    const names = Object.keys(MODES).slice(0, 3);
    const by = key === "arrowright" || key === "arrowdown" ? 1 : 2;
    this.setMode(names[(names.indexOf(this.mode) + by) % 3]);
    this.find(`[data-mode=${this.mode}]`).focus();
  }

  setBackground(name) {
    this.background = name;
    this.showChoices();
    this.painter.refresh();
    this.say(`Background: ${name}`);
  }

  showChoices() {
    for (const button of this.root.querySelectorAll("[data-mode]")) {
      const chosen = button.dataset.mode === this.mode;
      button.setAttribute("aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
    }
    this.root.dataset.background = this.background;
    this.find("[data-act=background]").setAttribute("aria-label", `Background: ${this.background}`);
  }

  openPanel(name) {
    for (const panel of this.root.querySelectorAll(".panel")) {
      const open = panel.classList.contains(name) && panel.hidden;
      panel.hidden = !open;
      const kind = panel.classList.contains("crop") ? "crop" : "about";
      this.find(`[data-act=${kind}]`).setAttribute("aria-expanded", open);
    }
    this.showSpeed();
    this.drawFrame();
  }

  // -- crop ----------------------------------------------------------------------------------------------------------

  buildCrop() {
    const rows = this.find(".crop .rows");
    this.sliders = [];
    AXES.forEach((name, axis) => {
      const row = document.createElement("div");
      const label = document.createElement("span");
      label.textContent = name;
      const track = document.createElement("div");
      track.className = "track";
      for (const end of [0, 1]) {
        const slider = document.createElement("input");
        Object.assign(slider, { type: "range", min: 0, max: CROP_STEPS, value: end * CROP_STEPS });
        slider.setAttribute("aria-label", `${name} ${end ? "to" : "from"}`);
        slider.addEventListener("input", () => this.slide(axis, end));
        this.sliders[axis + 3 * end] = slider;
        track.append(slider);
      }
      row.append(label, track);
      rows.append(row);
    });
  }

  slide(axis, end) {
    const shares = [...this.shares];
    const other = shares[axis + 3 * (1 - end)];
    const value = this.sliders[axis + 3 * end].valueAsNumber / CROP_STEPS;
    const gap = 2 / CROP_STEPS;
    shares[axis + 3 * end] = end ? Math.max(value, other + gap) : Math.min(value, other - gap);
    this.setCrop(shares);
  }

  setCrop(shares) {
    this.shares = shares;
    shares.forEach((share, i) => (this.sliders[i].value = Math.round(share * CROP_STEPS)));
    for (let axis = 0; axis < 3; axis++) {
      const track = this.sliders[axis].parentElement;
      track.style.setProperty("--from", shares[axis]);
      track.style.setProperty("--to", shares[axis + 3]);
    }
    this.painter.touch();
  }

  // Corners of what is shown, min then max, in world units; null for all.
  crop() {
    const whole = this.shares.every((share, i) => share === (i < 3 ? 0 : 1));
    return whole ? null : this.boxOf(this.shares);
  }

  boxOf(shares) {
    const { aabb } = this.bake.header;
    return shares.map((share, i) => aabb[i % 3] + share * (aabb[(i % 3) + 3] - aabb[i % 3]));
  }

  // The box's edges over the picture while it is being changed.
  drawFrame() {
    const path = this.find(".frame path");
    if (this.find(".panel.crop").hidden) return path.setAttribute("d", "");
    const pose = this.camera.pose(this.canvas.clientWidth, this.canvas.clientHeight);
    const box = this.boxOf(this.shares);
    const corner = (i) => project(pose, [0, 1, 2].map((axis) => box[axis + ((i >> axis) & 1 ? 3 : 0)]));
    let lines = "";
    for (let i = 0; i < 8; i++)
      for (const bit of [1, 2, 4]) {
        if (i & bit) continue;
        const ends = [corner(i), corner(i | bit)];
        if (ends[0] && ends[1]) lines += `M${ends.map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L")}`;
      }
    path.setAttribute("d", lines);
  }

  // -- camera --------------------------------------------------------------------------------------------------------

  move(change) {
    this.gestures.stop();
    change();
    this.painter.touch();
  }

  // What is seen at this place becomes what the camera turns about; it glides there.
  pivot(clientX, clientY) {
    const bounds = this.canvas.getBoundingClientRect();
    const pose = this.camera.pose(bounds.width, bounds.height);
    const point = this.renderer.pick(pose, clientX - bounds.left, clientY - bounds.top, this.crop());
    if (!point) return this.say("Nothing there to turn about");
    const { target, distance } = this.camera;
    const start = performance.now();
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const glide = (now) => {
      const t = calm ? 1 : clamp((now - start) / 260, 0, 1);
      const eased = t * t * (3 - 2 * t);
      this.camera.target = add(times(target, 1 - eased), times(point, eased));
      this.camera.distance = distance;
      this.painter.touch();
      if (t < 1) this.gestures.glide = requestAnimationFrame(glide);
    };
    this.gestures.stop();
    glide(start);
    this.say("New pivot");
  }

  // Called after every picture; the address follows once nothing has moved for a while.
  rest() {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => {
      this.showSpeed();
      if (this.usesFragment) history.replaceState(null, "", `#${this.camera.toFragment()}`);
    }, 300);
  }

  // -- out -----------------------------------------------------------------------------------------------------------

  // The picture as a PNG, as large as on the screen; over the checker it is transparent.
  async screenshot() {
    const [width, height] = this.painter.size;
    const solid = this.background !== "checker";
    const samples = this.painter.msPerPixel.fine * width * height < 200 ? 4 : 1;
    const options = { mode: this.mode, crop: this.crop(), background: solid ? this.background : null, samples };
    const pixels = this.renderer.picture(this.camera.pose(width, height), options);
    if (!solid) unmultiply(pixels);
    const sheet = Object.assign(document.createElement("canvas"), { width, height });
    sheet.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
    const blob = await new Promise((done) => sheet.toBlob(done, "image/png"));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${this.bake.header.name.replace(/[^\p{L}\p{N}._-]+/gu, "_") || "scene"}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    this.say("Picture saved");
  }

  fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.root.requestFullscreen?.();
  }

  // -- states --------------------------------------------------------------------------------------------------------

  restore() {
    try {
      this.renderer = new Renderer(this.canvas, this.bake);
      this.painter.restart(this.renderer);
      this.root.dataset.state = "ready";
    } catch (error) {
      this.fail(error);
    }
  }

  progress(share, what) {
    const percent = Math.round(100 * share);
    this.find(".notice p").textContent = `${what} …`;
    const bar = this.find(".progress");
    bar.setAttribute("aria-valuenow", percent);
    bar.firstElementChild.style.width = `${percent}%`;
  }

  cover(heading, text, state = "waiting") {
    this.root.dataset.state = state;
    this.find(".notice h2").textContent = heading;
    this.find(".notice p").textContent = text;
  }

  fail(error) {
    const known = error instanceof BakeError;
    if (!known) console.error(error);
    this.cover("This scene cannot be shown", known ? error.message : `Something went wrong: ${error.message}`, "failed");
    this.find(".notice").setAttribute("role", "alert");
  }

  showFacts() {
    const { header } = this.bake;
    const list = this.find(".facts");
    for (const [name, value] of header.facts) {
      const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      detail.textContent = value;
      list.append(term, detail);
    }
  }

  showSpeed() {
    if (this.find(".panel.about").hidden) return;
    const { firstMs, stillMs, framesPerSecond, width, height } = this.stats;
    const ms = (value) => (value === null ? "–" : value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);
    const moving = framesPerSecond === null ? "–" : `${Math.round(framesPerSecond)} a second`;
    this.find(".speed").textContent =
      `Here: first picture after ${ms(firstMs)}, frames while moving ${moving}, ` +
      `still picture of ${width} × ${height} in ${ms(stillMs)}.`;
  }

  say(text) {
    this.find(".said").textContent = text;
  }
}

function unmultiply(pixels) {
  for (let i = 0; i < pixels.length; i += 4) {
    const scale = pixels[i + 3] ? 255 / pixels[i + 3] : 0;
    for (let c = 0; c < 3; c++) pixels[i + c] *= scale;
  }
}

function start() {
  const source = document.getElementById("bake-header") ? embeddedSource() : folderSource();
  const fragment = location.href !== "about:srcdoc"; // a frame in a notebook has no address of its own
  window.fieldmorph = new Viewer(document.querySelector(".viewer"), source, { fragment });
}
