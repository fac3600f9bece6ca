// The tensor tab: a map, sliders for the other modes, a curve, and where to measure next.

/** @import { FigureSection, Model, Server } from "./gradio.js" */
/** @import { Cell } from "./map.js" */
import { append, query } from "../scene/dom.js";
import { RadioGroup } from "../scene/radio_group.js";
import { CurveView } from "./curve.js";
import { DesignView } from "./design.js";
import { MapView } from "./map.js";
import { makeSliders } from "./sliders.js";

const COUNTS = [1, 2, 3, 5, 8, 12]; // of places to measure
const MIN_CHANGE = 24; // pixels of width, from which a curve is redrawn

/** @typedef {"mean" | "sd" | "next"} Quantity */

class Explorer {
  /**
   * @param {HTMLElement} root
   * @param {Model} model
   * @param {Server} server
   */
  constructor(root, model, server) {
    this.root = root;
    this.model = model;
    this.place = [...model.place]; // a stop along each mode
    this.along = model.along; // mode of the curve
    this.count = 5;
    this.width = 0;
    /** @type {RadioGroup<Quantity>} */
    this.quantity = new RadioGroup(query(root, ".modes", HTMLElement), "show", "mean", () => {
      this.map?.showScale(this.mapQuantity);
      this.refresh();
    });
    this.curve = new CurveView(root, server, (mode, stop) => this.moveAlong(mode, stop));
    this.map = model.map && new MapView(root, model, server, (cell) => this.moveTo(cell));
    this.design = this.map && new DesignView(root, model, server, this.map, (place) => this.go(place));
    this.sliders = makeSliders(root, model, (mode, stop) => this.moveAlong(mode, stop));
    query(root, ".modes", HTMLElement).hidden = !model.map;
    root.toggleAttribute("data-wide", !model.map || model.map.ratio > 2);
    append(query(root, ".about", HTMLElement), "strong", model.title);
    query(root, ".about", HTMLElement).append(` ${model.about}`);
    this.fillSelects();
    new ResizeObserver(() => this.resize()).observe(this.curve.plotted);
    root.dataset.state = "ready";
  }

  get mapQuantity() {
    return this.quantity.value === "mean" ? "mean" : "sd";
  }

  fillSelects() {
    const counts = COUNTS.map((n) => /** @type {[number, string]} */ ([n, String(n)]));
    fillSelect(query(this.root, ".many select", HTMLSelectElement), counts, this.count, (n) => {
      this.count = n;
      this.refresh();
    });
    const modes = this.model.modes.map((mode, k) => /** @type {[number, string]} */ ([k, mode.name]));
    fillSelect(query(this.root, ".curve select", HTMLSelectElement), modes, this.along, (k) => {
      this.along = k;
      this.refresh(false);
    });
  }

  /**
   * @param {number} mode
   * @param {number} stop
   */
  moveAlong(mode, stop) {
    this.go(this.place.map((old, k) => (k === mode ? stop : old)));
  }

  /** @param {Cell} cell */
  moveTo([x, y]) {
    const { across, up } = this.model;
    this.go(this.place.map((old, k) => (k === across ? x : k === up ? y : old)));
  }

  /** @param {number[]} place */
  go(place) {
    const changesMap = this.model.sliders.some((k) => place[k] !== this.place[k]);
    this.place = [...place];
    this.refresh(changesMap);
  }

  /** @param {boolean} changesMap whether the map changes as well */
  refresh(changesMap = true) {
    const { design, map, model, place } = this;
    const isNext = this.quantity.value === "next";
    for (const slider of this.sliders) slider.show(place[slider.mode]);
    this.curve.request(place, this.along);
    if (!map || !design || model.across === null || model.up === null) return;
    map.setCell([place[model.across], place[model.up]]);
    design.toggle(isNext);
    if (!changesMap) return;
    map.request({ place, show: this.mapQuantity });
    design.clear();
    if (isNext) design.request({ place, n: this.count });
  }

  resize() {
    const { width } = this.curve;
    const isNew = width > 0 && Math.abs(width - this.width) >= MIN_CHANGE;
    if (isNew) this.width = width;
    this.map?.fit();
    if (isNew) this.refresh(!this.map?.levels);
  }

  /** @param {FigureSection[]} sections */
  showFigures(sections) {
    const parent = query(this.root, ".figures", HTMLElement);
    for (const { title, description, figures } of sections) {
      const section = append(parent, "section");
      append(section, "h2", title);
      append(section, "p", description);
      append(section, "div").innerHTML = figures.join("");
    }
  }
}

/**
 * @param {HTMLSelectElement} select
 * @param {[number, string][]} options values and texts
 * @param {number} chosen
 * @param {(value: number) => void} onChange
 */
function fillSelect(select, options, chosen, onChange) {
  for (const [value, text] of options) append(select, "option", text).value = String(value);
  select.value = String(chosen);
  select.addEventListener("change", () => onChange(Number(select.value)));
}

/**
 * @param {HTMLElement} root with the markup of tensor.html
 * @param {Model} model
 * @param {Server} server
 */
export function startExplorer(root, model, server) {
  const explorer = new Explorer(root, model, server);
  void server.tensor_figures({}).then((answer) => explorer.showFigures(answer.sections ?? []));
}
