// The address that holds the view: that of the page in whose frame this one lies, so that it can be shared.

/** @import { Mode } from "../scene/shaders.js" */
/** @import { Comparison } from "./viewport.js" */

const COMPARISONS = ["split", "a", "b", "difference"];
const IMAGES = ["color", "depth", "opacity"];

/** Return the window whose address it is. */
export function sharedWindow() {
  try {
    if (window.parent.location.origin === location.origin) return window.parent;
  } catch {
    // a page of another origin
  }
  return window;
}

/**
 * Return what an address says of the comparison and of the image.
 *
 * @param {string} fragment
 * @returns {{ comparison: Comparison | null, mode: Mode | null }}
 */
export function readChoices(fragment) {
  const values = new URLSearchParams(fragment.replace(/^#/, ""));
  const comparison = values.get("compare") ?? "";
  const mode = values.get("image") ?? "";
  return {
    comparison: COMPARISONS.includes(comparison) ? /** @type {Comparison} */ (comparison) : null,
    mode: IMAGES.includes(mode) ? /** @type {Mode} */ (mode) : null,
  };
}

/**
 * Return the choices as a part of an address; empty where they are the usual ones.
 *
 * @param {Comparison | null} comparison null where there is nothing to compare
 * @param {Mode} mode
 */
export function choicesText(comparison, mode) {
  const compared = comparison && comparison !== "split" ? `&compare=${comparison}` : "";
  return compared + (mode === "color" ? "" : `&image=${mode}`);
}
