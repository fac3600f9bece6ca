// The map of a tensor model: cells, scale, ticks, the chosen place and a tooltip.

/** @import { LayersAnswer, MapAnswer, MapRequest, Mode, Model, Server } from "./gradio.js" */
import { append, context2d, makeCanvas, query } from "../scene/dom.js";
import { clamp } from "../scene/vector.js";
import { latestOnly } from "./latest.js";

const MAX_CACHED = 300; // maps that are kept

/** @typedef {[number, number]} Cell column from the left and row from below */

/** @type {Record<string, Cell | undefined>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export class MapView {
  /**
   * @param {HTMLElement} root
   * @param {Model} model
   * @param {Server} server
   * @param {(cell: Cell) => void} onChoose called with a cell that the visitor chose
   */
  constructor(root, model, server, onChoose) {
    const { map, across, up } = model;
    if (!map || across === null || up === null) throw new Error("This model has no map.");
    this.root = root;
    this.model = model;
    this.map = map;
    this.server = server;
    this.onChoose = onChoose;
    /** @type {[Mode, Mode]} */
    this.modes = [model.modes[across], model.modes[up]];
    this.plot = query(root, ".plot", HTMLElement);
    this.canvas = query(this.plot, "canvas", HTMLCanvasElement);
    this.tooltip = query(this.plot, ".tip", HTMLElement);
    this.cells = makeCanvas(map.size[0], map.size[1]);
    /** @type {Uint8Array | null} */
    this.levels = null; // of the cells from 0 to 255, the upper row first
    /** @type {Cell} */
    this.cell = [0, 0];
    this.scale = map.scales.mean;
    /** @type {Map<string, MapAnswer>} */
    this.cache = new Map();
    /** @type {(request: MapRequest) => void} */
    this.request = latestOnly(
      root,
      "map",
      (request) => this.load(request),
      (answer, request) => this.show(answer, request),
    );
    query(root, ".map", HTMLElement).hidden = false;
    /** @type {Uint8Array | null} */
    this.alpha = null; // of the cells: 0 where they have no value
    this.showTicks("x");
    this.showTicks("y");
    this.showScale("mean");
    void server.tensor_layers({}).then((answer) => this.showLayers(answer));
    this.plot.addEventListener("click", (event) => onChoose(this.cellAt(event)));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.plot.addEventListener("pointermove", (event) => this.showTooltip(event));
    this.plot.addEventListener("pointerleave", () => (this.tooltip.hidden = true));
  }

  /**
   * Draw coastlines, and data points with a toggle.
   *
   * @param {LayersAnswer} answer
   */
  showLayers({ error, coasts, dots }) {
    if (error) return;
    const layer = query(this.plot, ".dots", SVGElement);
    query(this.plot, ".coasts", SVGElement).setAttribute("d", coasts);
    let path = "";
    for (let i = 0; i < dots.length; i += 2) path += `M${dots[i]} ${dots[i + 1]}h0`;
    layer.setAttribute("d", path);
    const toggle = query(this.root, ".dotted", HTMLElement);
    toggle.hidden = !dots.length;
    const box = query(toggle, "input", HTMLInputElement);
    box.addEventListener("change", () => layer.toggleAttribute("hidden", !box.checked));
  }

  /** @param {"x" | "y"} side */
  showTicks(side) {
    const ticks = query(this.root, `.ticks.${side}`, HTMLElement);
    query(this.root, `.axis.${side}`, HTMLElement).textContent = this.map.names[side];
    for (const [fraction, text] of this.map.ticks[side]) {
      append(ticks, "span", text).style[side === "x" ? "left" : "bottom"] = `${100 * fraction}%`;
      if (side === "y") append(ticks, "b", text); // makes the column as wide as the widest
    }
  }

  /** @param {"mean" | "sd"} quantity */
  showScale(quantity) {
    this.scale = this.map.scales[quantity];
    const { name, colors, ticks } = this.scale;
    const stops = [];
    for (let i = 0; i < 256; i += 15) stops.push(`rgb(${colors.slice(3 * i, 3 * i + 3).join(" ")})`);
    query(this.root, ".scale .name", HTMLElement).textContent = name;
    query(this.root, ".scale .colors", HTMLElement).style.background =
      `linear-gradient(90deg, ${stops.join(", ")})`;
    const numbers = query(this.root, ".scale .numbers", HTMLElement);
    numbers.replaceChildren();
    for (const [fraction, text] of ticks) append(numbers, "span", text).style.left = `${100 * fraction}%`;
  }

  /**
   * @param {MapRequest} request
   * @returns {Promise<MapAnswer>}
   */
  async load(request) {
    const key = JSON.stringify([request.show, this.model.sliders.map((k) => request.place[k])]);
    const answer = this.cache.get(key) ?? (await this.server.tensor_map(request));
    if (!answer.error) this.cache.set(key, answer);
    for (const oldest of this.cache.keys()) {
      if (this.cache.size <= MAX_CACHED) break;
      this.cache.delete(oldest);
    }
    return answer;
  }

  /**
   * @param {MapAnswer} answer
   * @param {MapRequest} request
   */
  async show(answer, request) {
    const image = new Image();
    image.src = `data:image/png;base64,${answer.png}`;
    await image.decode();
    const { width, height } = this.cells;
    const context = context2d(this.cells, { willReadFrequently: true });
    context.clearRect(0, 0, width, height);
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, width, height);
    const { colors } = this.map.scales[request.show];
    const levels = (this.levels = new Uint8Array(width * height));
    const alpha = (this.alpha = new Uint8Array(width * height));
    for (let i = 0; i < levels.length; i++) {
      levels[i] = pixels.data[4 * i];
      alpha[i] = pixels.data[4 * i + 3];
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = colors[3 * levels[i] + c];
    }
    context.putImageData(pixels, 0, 0);
    this.showTitle(request.place);
    this.draw();
  }

  /** @param {number[]} place */
  showTitle(place) {
    const { model, scale } = this;
    const at = model.sliders.map((k) => model.modes[k].words[place[k]]);
    query(this.root, ".map .title", HTMLElement).textContent = [scale.name, ...at].join(", ");
  }

  draw() {
    const { canvas, plot } = this;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    canvas.width = Math.round(plot.clientWidth * ratio);
    canvas.height = Math.round(plot.clientHeight * ratio);
    const context = context2d(canvas);
    context.imageSmoothingQuality = "high";
    if (this.levels) context.drawImage(this.cells, 0, 0, canvas.width, canvas.height);
  }

  /** Adapt the map's proportions to the window. */
  fit() {
    const { plot } = this;
    if (!plot.clientWidth) return;
    const widest = window.innerWidth < 620 ? 2 : 4.2;
    const narrowest = plot.clientWidth / (0.62 * window.innerHeight);
    const ratio = clamp(this.map.ratio, Math.max(narrowest, 0.7), Math.max(widest, narrowest));
    plot.style.setProperty("--ratio", String(ratio));
    this.draw();
  }

  /** @param {Cell} cell */
  setCell(cell) {
    this.cell = cell;
    this.moveTo(query(this.plot, ".place", HTMLElement), cell);
  }

  /**
   * Place a mark at the middle of a cell.
   *
   * @param {HTMLElement} mark
   * @param {Cell} cell
   */
  moveTo(mark, [x, y]) {
    const [nx, ny] = this.map.size;
    mark.style.left = `${(100 * (x + 0.5)) / nx}%`;
    mark.style.bottom = `${(100 * (y + 0.5)) / ny}%`;
  }

  /**
   * @param {MouseEvent} event
   * @returns {Cell}
   */
  cellAt(event) {
    const [nx, ny] = this.map.size;
    const box = this.plot.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * nx);
    const y = Math.floor(((box.bottom - event.clientY) / box.height) * ny);
    return [clamp(x, 0, nx - 1), clamp(y, 0, ny - 1)];
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const step = ARROWS[event.key];
    if (!step) return;
    event.preventDefault();
    const [nx, ny] = this.map.size;
    const factor = event.shiftKey ? 10 : 1;
    const [x, y] = this.cell;
    this.onChoose([clamp(x + factor * step[0], 0, nx - 1), clamp(y + factor * step[1], 0, ny - 1)]);
  }

  /** @param {PointerEvent} event */
  showTooltip(event) {
    const { levels, tooltip } = this;
    tooltip.hidden = !levels || event.pointerType === "touch";
    if (tooltip.hidden || !levels) return;
    const [x, y] = this.cellAt(event);
    const [nx, ny] = this.map.size;
    const { low, high, digits, unit } = this.scale;
    const i = (ny - 1 - y) * nx + x;
    const number = (low + (levels[i] * (high - low)) / 255).toFixed(digits);
    const value = this.alpha?.[i] ? `${number}${unit}` : `No value (mask: ${this.map.mask})`;
    const [column, row] = this.modes;
    const box = this.plot.getBoundingClientRect();
    const isRight = event.clientX > box.left + box.width / 2;
    tooltip.textContent = `${value} at ${row.words[y]}, ${column.words[x]}`;
    tooltip.style.left = `${event.clientX - box.left}px`;
    tooltip.style.top = `${Math.max(event.clientY - box.top, 44)}px`;
    tooltip.style.setProperty("--side", isRight ? "calc(-100% - 12px)" : "12px");
  }
}
