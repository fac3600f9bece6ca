// One scene on the stage: the baked proxy, drawn here, under pictures of the true field, drawn on the server.

const POLL_MS = 700;

class Layer {
  // `look` tells what the painter asks; `onChange(layer)` hears of the bake's state, `onFrame` of every picture.
  constructor(element, description, look, onChange, onFrame) {
    Object.assign(this, { element, description, look, onChange, onFrame });
    this.proxy = element.querySelector(".proxy");
    this.truth = element.querySelector(".truth");
    this.painter = null;
  }

  get fluent() {
    return this.painter !== null;
  }

  // Draws the proxy as soon as there is a bake.
  async watch() {
    try {
      while (["waiting", "working"].includes(this.description.bake.state)) {
        await new Promise((done) => setTimeout(done, POLL_MS));
        const answer = await fetch(`/scenes/${this.description.id}`);
        if (answer.ok) this.description = await answer.json();
        this.onChange(this);
      }
      if (this.description.bake.state === "ready") await this.draw();
    } catch (error) {
      if (!(error instanceof BakeError)) console.warn(error);
      this.description.bake = { state: "failed", reason: error.message };
    }
    this.onChange(this);
  }

  async draw() {
    if (!document.createElement("canvas").getContext("webgl2")) throw new BakeError(NO_WEBGL);
    this.bake = await readBake(folderSource(`/scenes/${this.description.id}/bake/`));
    this.renderer = new Renderer(this.proxy, this.bake);
    this.painter = new Painter(this.proxy, this.renderer, this.look, () => this.onFrame());
    this.proxy.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.proxy.addEventListener("webglcontextrestored", () => {
      this.renderer = new Renderer(this.proxy, this.bake);
      this.painter.restart(this.renderer);
    });
    this.painter.resize();
  }

  // The sheet for a picture of so many pixels: clear over a proxy, else with what was there before.
  sheet(width, height) {
    const context = this.truth.getContext("2d");
    const before = this.fluent ? null : copy(this.truth);
    Object.assign(this.truth, { width, height }); // clears it
    if (before) context.drawImage(before, 0, 0, width, height);
    return context;
  }

  // While something moves the proxy shows through; without one, what the server drew last stays.
  uncover() {
    if (this.fluent) this.element.dataset.shows = "proxy";
  }

  cover() {
    this.element.dataset.shows = "truth";
  }

  // Draws what is seen onto a sheet of another size, at once: the sheet may blend.
  drawOnto(context, width, height) {
    const seen = Object.assign(document.createElement("canvas"), { width, height });
    const own = seen.getContext("2d");
    if (this.fluent) {
      this.painter.refresh(); // a drawing buffer is only there in the same turn
      own.drawImage(this.proxy, 0, 0, width, height);
    }
    if (this.element.dataset.shows === "truth") own.drawImage(this.truth, 0, 0, width, height);
    context.drawImage(seen, 0, 0);
  }

  point(pose, x, y) {
    return this.fluent ? this.renderer.pick(pose, x, y) : null;
  }
}

function copy(canvas) {
  const other = document.createElement("canvas");
  Object.assign(other, { width: canvas.width, height: canvas.height });
  other.getContext("2d").drawImage(canvas, 0, 0);
  return other;
}
