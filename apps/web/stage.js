// The stage: one scene, or two on one camera. Each is drawn here while something moves and by the server once it rests.

const REFINE_MS = 180; // without movement until the true fields are asked for
const PREVIEW_PIXELS = 160 * 120; // of a picture by the server for the time that something moves
const MOST_PIXELS = 640 * 480; // of a picture of the true field
const SURROUNDINGS = ["white", "black"];
const COMPARISONS = ["split", "a", "b", "difference"];

class Stage {
  constructor(root, ids) {
    this.root = root;
    this.surface = this.find(".touch");
    this.compare = ids.length > 1 ? "split" : "a";
    this.share = 0.5; // of the width, where the second scene begins
    this.background = matchMedia("(prefers-color-scheme: dark)").matches ? "black" : "white";
    this.stats = { firstTileMs: null, refinedMs: null, previews: 0, pictures: 0 };
    this.ready = this.load(ids).catch((error) => {
      this.fail(error);
      throw error;
    });
    this.ready.catch(() => {}); // told on the page
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  async load(ids) {
    if (!ids.length) throw new StageError("No scene is open", "Start with: fieldmorph view FILE");
    const scenes = await Promise.all(ids.map((id) => this.describe(id)));
    this.camera = new Turntable(scenes[0].camera, scenes[0].aabb);
    this.camera.fromFragment(location.hash);
    this.truth = new Truth(ids);
    const look = {
      pose: (width, height) => this.camera.pose(width, height),
      mode: () => "colour",
      crop: () => null,
      background: () => this.background,
      samples: () => 1, // the true field comes instead of more
    };
    const elements = [...this.root.querySelectorAll(".layer")];
    this.layers = scenes.map((scene, i) => new Layer(elements[i], scene, look, () => this.tell(), () => this.drawn()));
    this.listen();
    this.name(scenes);
    this.show();
    this.root.dataset.state = "ready";
    this.moved();
    for (const layer of this.layers) layer.watch();
  }

  async describe(id) {
    const answer = await fetch(`/scenes/${encodeURIComponent(id)}`);
    if (!answer.ok) throw new StageError("This scene cannot be shown", (await answer.json()).error);
    return answer.json();
  }

  name(scenes) {
    [".first", ".second"].forEach((place, i) => {
      const title = this.find(`.title${place}`);
      title.hidden = !scenes[i];
      if (!scenes[i]) return;
      title.querySelector("h1").textContent = scenes[i].name;
      title.querySelector("p").textContent = scenes[i].facts[0]?.[1] ?? "";
    });
    this.surface.setAttribute("aria-label", `3-D view of ${scenes.map((scene) => scene.name).join(" and ")}`);
  }

  listen() {
    const { root, surface } = this;
    this.gestures = new Gestures(surface, this.camera, () => this.moved(), (x, y) => this.pivot(x, y));
    this.film = new FilmPanel(this);
    new ResizeObserver(() => {
      for (const layer of this.layers) layer.painter?.resize();
      this.moved();
    }).observe(surface);
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button?.dataset.compare) this.setCompare(button.dataset.compare);
      if (button?.dataset.act) this.act(button.dataset.act);
    });
    root.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("hashchange", () => this.camera.fromFragment(location.hash) && this.moved());
    const split = this.find(".split");
    split.addEventListener("pointerdown", (event) => split.setPointerCapture(event.pointerId));
    split.addEventListener("pointermove", (event) => {
      if (split.hasPointerCapture(event.pointerId)) this.setShare(event.clientX / surface.clientWidth);
    });
    split.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.05, ArrowRight: 0.05 }[event.key];
      if (!step) return;
      this.setShare(this.share + step);
      event.preventDefault();
      event.stopPropagation();
    });
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select")) return;
    const key = event.key.toLowerCase();
    const acts = { b: "background", r: "reset", s: "screenshot", m: "film", f: "fullscreen", h: "about", "?": "about" };
    if (acts[key]) this.act(acts[key]);
    else if (this.layers.length > 1 && COMPARISONS[key - 1]) this.setCompare(COMPARISONS[key - 1]);
    else if (key === "escape") this.openPanel(null);
    else if (event.target.role === "radio" && key.startsWith("arrow")) this.step(key);
    else return;
    event.preventDefault();
  }

  act(name) {
    const acts = {
      background: () => this.setBackground(SURROUNDINGS[1 - SURROUNDINGS.indexOf(this.background)]),
      reset: () => this.move(() => this.camera.reset()),
      screenshot: () => this.screenshot(),
      fullscreen: () => (document.fullscreenElement ? document.exitFullscreen() : this.root.requestFullscreen?.()),
      film: () => this.openPanel("film"),
      about: () => this.openPanel("about"),
    };
    acts[name]?.();
  }

  step(key) {
    const by = key === "arrowright" || key === "arrowdown" ? 1 : COMPARISONS.length - 1;
    this.setCompare(COMPARISONS[(COMPARISONS.indexOf(this.compare) + by) % COMPARISONS.length]);
    this.find(`button[data-compare=${this.compare}]`).focus();
  }

  openPanel(name) {
    for (const panel of this.root.querySelectorAll(".panel")) {
      const mine = panel.classList.contains(name);
      panel.hidden = !(mine && panel.hidden);
      const kind = panel.classList.contains("film") ? "film" : "about";
      this.find(`[data-act=${kind}]`).setAttribute("aria-expanded", !panel.hidden);
    }
  }

  // -- what is shown -------------------------------------------------------------------------------------------------

  get visible() {
    return this.layers.map((_, i) => i).filter((i) => !(this.compare === "a" && i) && !(this.compare === "b" && !i));
  }

  setCompare(name) {
    this.compare = name;
    this.show();
    this.moved();
  }

  setShare(share) {
    this.share = clamp(share, 0, 1);
    this.show();
    this.rest(); // only what is seen was drawn
  }

  setBackground(name) {
    this.background = name;
    this.show();
    for (const layer of this.layers) layer.painter?.refresh();
    this.moved();
  }

  show() {
    const { root, layers } = this;
    root.dataset.compare = this.compare;
    root.dataset.background = this.background;
    root.style.setProperty("--split", this.share);
    this.find(".modes").hidden = layers.length < 2;
    const split = this.find(".split");
    split.hidden = this.compare !== "split";
    split.setAttribute("aria-valuenow", Math.round(100 * this.share));
    layers.forEach((layer, i) => (layer.element.hidden = !this.visible.includes(i)));
    for (const button of root.querySelectorAll("button[data-compare]")) {
      const chosen = button.dataset.compare === this.compare;
      button.setAttribute("aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
    }
  }

  drawn() {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => history.replaceState(null, "", `#${this.camera.toFragment()}`), 300);
  }

  // -- movement ------------------------------------------------------------------------------------------------------

  move(change) {
    this.gestures.stop();
    change();
    this.moved();
  }

  moved() {
    for (const layer of this.layers) {
      layer.uncover();
      layer.painter?.touch();
    }
    this.stale = true;
    this.rest();
    if (this.visible.every((i) => this.layers[i].fluent)) this.truth.stop();
    else this.preview();
    this.tell(null, "moving");
  }

  rest() {
    clearTimeout(this.still);
    this.still = setTimeout(() => this.refine(), REFINE_MS);
  }

  pivot(clientX, clientY) {
    const { clientWidth, clientHeight } = this.surface;
    const which = this.compare === "b" || (this.compare === "split" && clientX > this.share * clientWidth) ? 1 : 0;
    const point = this.layers[which]?.point(this.camera.pose(clientWidth, clientHeight), clientX, clientY);
    if (point) this.move(() => (this.camera.target = point));
  }

  // Small pictures by the server where there is no proxy yet: one at a time, each of the view of its moment.
  async preview() {
    if (this.previewing) return;
    this.previewing = true;
    try {
      while (this.stale) {
        this.stale = false;
        if (await this.draw(PREVIEW_PIXELS, true)) this.stats.previews++;
      }
    } catch (error) {
      this.tell(error.message);
    } finally {
      this.previewing = false;
    }
  }

  async refine() {
    const started = performance.now();
    this.stale = false;
    try {
      if (!(await this.draw(MOST_PIXELS, false, started))) return;
      this.stats.pictures++;
      this.stats.refinedMs = performance.now() - started;
      this.tell("True field", "done");
    } catch (error) {
      this.tell(error.message, "failed");
    }
  }

  // The true fields of all visible layers, in at most so many pixels.
  draw(most, quick, started = null) {
    const { clientWidth, clientHeight } = this.surface;
    const scale = Math.min(1, Math.sqrt(most / (clientWidth * clientHeight)));
    const [width, height] = [clientWidth, clientHeight].map((n) => Math.max(1, Math.floor(n * scale)));
    const shown = this.visible.map((i) => this.layers[i]);
    const sheets = new Map();
    let done = 0;
    this.truth.scenes = shown.map((layer) => layer.description.id);
    const halves = [[0, this.share], [this.share, 1]];
    const shares = this.compare === "split" && !quick ? halves : shown.map(() => [0, 1]);
    const wanted = width * height * shares.reduce((sum, [first, end]) => sum + end - first, 0);
    const options = { background: this.background === "white" ? 1 : 0, quick, shares };
    return this.truth.picture(this.camera.pose(width, height), options, (which, bitmap, tile) => {
      const layer = shown[which];
      if (!sheets.has(layer)) sheets.set(layer, layer.sheet(width, height));
      if (started !== null && !done) this.stats.firstTileMs = performance.now() - started;
      sheets.get(layer).drawImage(bitmap, tile.x, tile.y);
      layer.cover();
      done += tile.width * tile.height;
      if (!quick) this.tell(`True field ${Math.min(99, Math.floor((100 * done) / wanted))} %`, "busy");
    });
  }

  // One line about what is on the stage; without a text only what is told of the bakes is new.
  tell(text = this.told?.[0] ?? null, kind = this.told?.[1] ?? "moving") {
    this.told = [text, kind];
    const bakes = this.visible.map((i) => this.layers[i].description.bake);
    const waiting = bakes.find((bake) => ["waiting", "working"].includes(bake.state));
    const share = waiting?.share ? ` ${Math.floor(100 * waiting.share)} %` : "";
    const preparing = waiting ? ` · baking${share}` : "";
    const state = this.find(".state");
    const strength = this.compare === "difference" ? "Difference × 5 · " : ""; // as in stage.css
    state.textContent = strength + (text ?? (waiting ? "Preview" : "Proxy")) + preparing;
    state.dataset.kind = kind;
  }

  // -- out -----------------------------------------------------------------------------------------------------------

  // What is on the stage, as a sheet of so many pixels.
  snapshot(width, height) {
    const sheet = Object.assign(document.createElement("canvas"), { width, height });
    const context = sheet.getContext("2d");
    context.fillStyle = this.background;
    context.fillRect(0, 0, width, height);
    this.visible.forEach((which, order) => {
      context.save();
      if (this.compare === "split" && which) {
        context.beginPath();
        context.rect(this.share * width, 0, width, height);
        context.clip();
      }
      if (this.compare === "difference" && order) context.globalCompositeOperation = "difference";
      this.layers[which].drawOnto(context, width, height);
      context.restore();
    });
    return sheet;
  }

  async screenshot() {
    const { clientWidth, clientHeight } = this.surface;
    const blob = await new Promise((done) => this.snapshot(clientWidth, clientHeight).toBlob(done, "image/png"));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    const names = this.visible.map((i) => this.layers[i].description.name).join("_");
    link.download = `${names.replace(/[^\p{L}\p{N}._-]+/gu, "_") || "scene"}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  fail(error) {
    const known = error instanceof StageError;
    if (!known) console.error(error);
    this.root.dataset.state = "failed";
    this.find(".notice h2").textContent = known ? error.heading : "Something went wrong";
    this.find(".notice p").textContent = error.message;
    this.find(".notice").setAttribute("role", "alert");
  }
}

class StageError extends Error {
  constructor(heading, told) {
    super(told);
    this.heading = heading;
  }
}

function startStage() {
  const ids = (new URLSearchParams(location.search).get("scenes") ?? "").split(",").filter(Boolean);
  window.fieldmorph = new Stage(document.querySelector(".stage"), ids.slice(0, 2));
}
