// The panel that makes films: views along the way, length and size, progress, cancelling, the film.

class FilmPanel {
  constructor(stage) {
    this.stage = stage;
    this.panel = stage.find(".panel.film");
    this.keys = []; // eye and target
    this.making = null;
    const acts = { addkey: "add", clearkeys: "clear", makefilm: "make", cancelfilm: "cancel" };
    for (const [act, method] of Object.entries(acts)) {
      this.find(`[data-act=${act}]`).addEventListener("click", () => this[method]());
    }
    const seconds = this.find("[name=seconds]");
    seconds.addEventListener("input", () => (this.find("output").textContent = `${seconds.value} s`));
  }

  find(selector) {
    return this.panel.querySelector(selector);
  }

  add() {
    const { camera } = this.stage;
    const key = { eye: camera.eye(), target: [...camera.target] };
    this.keys.push(key);
    const item = document.createElement("li");
    const remove = Object.assign(document.createElement("button"), { type: "button", title: "Remove this view" });
    remove.setAttribute("aria-label", `Remove view ${this.keys.length}`);
    remove.append(this.thumbnail(96, 72));
    remove.addEventListener("click", () => {
      this.keys.splice(this.keys.indexOf(key), 1);
      item.remove();
    });
    item.append(remove);
    this.find("ol").append(item);
  }

  // The middle of the stage, as a film has it.
  thumbnail(width, height) {
    const { stage } = this;
    const { clientWidth, clientHeight } = stage.surface;
    const whole = stage.snapshot(Math.round((height * clientWidth) / clientHeight), height);
    const sheet = Object.assign(document.createElement("canvas"), { width, height });
    const context = sheet.getContext("2d");
    context.fillStyle = stage.background;
    context.fillRect(0, 0, width, height);
    context.drawImage(whole, (width - whole.width) / 2, 0);
    return sheet;
  }

  clear() {
    this.keys = [];
    this.find("ol").replaceChildren();
  }

  async make() {
    if (!this.keys.length) this.add();
    const { stage } = this;
    const height = Number(this.find("[name=size]").value);
    const plan = {
      scenes: stage.visible.map((i) => stage.layers[i].description.id),
      keys: this.keys,
      up: stage.camera.up,
      focal: stage.camera.focal,
      seconds: Number(this.find("[name=seconds]").value),
      width: (height * 4) / 3,
      height,
      background: stage.background === "white" ? 1 : 0,
      split: stage.share,
    };
    this.making = new AbortController();
    this.show("Beginning …", 0);
    try {
      const answer = await fetch("/films", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(plan),
        signal: this.making.signal,
      });
      if (!answer.ok) throw new ServerError((await answer.json().catch(() => ({}))).error);
      for await (const line of lines(answer.body.getReader())) this.hear(JSON.parse(line));
      if (this.making) throw new ServerError("The film was not finished.");
    } catch (error) {
      if (error.name !== "AbortError") this.end(error instanceof ServerError ? error.message : new ServerError().message);
    }
  }

  hear({ done, total, film, error }) {
    if (error) throw new ServerError(error);
    if (!film) return this.show(`Frame ${done} of ${total}`, done / total);
    const made = this.find(".made");
    made.hidden = false;
    const video = made.querySelector("video");
    video.src = made.querySelector("a").href = `/films/${film}`;
    this.end("The film is ready.");
    video.onloadeddata = () => made.scrollIntoView({ block: "end" });
  }

  cancel() {
    this.making?.abort();
    this.end("Cancelled.");
  }

  show(text, share) {
    this.find(".making").hidden = false;
    this.find(".making p").textContent = text;
    const bar = this.find(".progress");
    bar.setAttribute("aria-valuenow", Math.round(100 * share));
    bar.firstElementChild.style.width = `${100 * share}%`;
    this.buttons(true);
  }

  end(text) {
    this.making = null;
    this.find(".making p").textContent = text;
    this.find(".progress i").style.width = "0";
    this.buttons(false);
  }

  buttons(busy) {
    this.find("[data-act=makefilm]").hidden = busy;
    this.find("[data-act=cancelfilm]").hidden = !busy;
  }
}

async function* lines(reader) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const parts = text.split("\n");
    text = parts.pop();
    yield* parts;
  }
}
