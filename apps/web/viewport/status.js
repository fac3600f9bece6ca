// One line about what the viewport shows: who drew it, how far the server and the bakes are.

/** @import { Layer } from "./layer.js" */
import { setChanged } from "../scene/dom.js";

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
    const cells = Math.min(...layers.map((layer) => layer.cells)); // 0 where one has no bake yet
    const shown = this.text ?? (cells ? `Baked preview, ${cells} cells` : "Preview");
    const textContent = (gain === null ? "" : `Difference × ${gain} · `) + shown + bakingText(layers);
    setChanged(this.element, { textContent });
    setChanged(this.element.dataset, { kind: this.kind });
  }
}

/**
 * Return how far the bakes are, all together.
 *
 * @param {Layer[]} layers
 */
function bakingText(layers) {
  if (!layers.some((layer) => layer.isBaking)) return "";
  const fractions = layers.map((layer) => (layer.isBaking ? (layer.description.bake.fraction ?? 0) : 1));
  const mean = fractions.reduce((sum, fraction) => sum + fraction, 0) / fractions.length;
  return ` · baking ${Math.floor(100 * mean)} %`;
}
