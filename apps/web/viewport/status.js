// One line about what the viewport shows: who drew it, how far the server and the bakes are.

/** @import { Layer } from "./layer.js" */

/** @typedef {"moving" | "busy" | "done" | "failed"} StatusKind */

export class Status {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    /** @type {string | null} */
    this.text = null;
    /** @type {StatusKind} */
    this.kind = "moving";
  }

  /**
   * @param {string | null} text null while only bakes are drawn
   * @param {StatusKind} kind
   */
  set(text, kind) {
    this.text = text;
    this.kind = kind;
  }

  /**
   * @param {Layer[]} layers that are visible
   * @param {number | null} gain of the difference that is shown
   */
  show(layers, gain) {
    const baking = layers.find((layer) => layer.isBaking);
    const prefix = gain === null ? "" : `Difference × ${gain} · `;
    const suffix = baking ? ` · baking${percentOf(baking.description.bake.fraction)}` : "";
    this.element.textContent = prefix + (this.text ?? (baking ? "Preview" : "Baked preview")) + suffix;
    this.element.dataset.kind = this.kind;
  }
}

/** @param {number | null | undefined} fraction */
function percentOf(fraction) {
  return fraction ? ` ${Math.floor(100 * fraction)} %` : "";
}
