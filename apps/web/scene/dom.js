// Helpers for elements, canvases and downloads.

/**
 * Return the first element below `root` that matches.
 *
 * @template {Element} T
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} type
 * @returns {T}
 * @throws {Error} if there is none of this type
 */
export function query(root, selector, type) {
  const found = root.querySelector(selector);
  if (!(found instanceof type)) throw new Error(`The page has no ${type.name} “${selector}”.`);
  return found;
}

/**
 * Return all elements below `root` that match and have this type.
 *
 * @template {Element} T
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} type
 * @returns {T[]}
 */
export function queryAll(root, selector, type) {
  return [...root.querySelectorAll(selector)].flatMap((element) =>
    element instanceof type ? [element] : [],
  );
}

/**
 * Return the 2-D context of a canvas.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasRenderingContext2DSettings} [options]
 * @returns {CanvasRenderingContext2D}
 */
export function context2d(canvas, options) {
  const context = canvas.getContext("2d", options);
  if (!context) throw new Error("This browser has no 2-D canvas.");
  return context;
}

/**
 * Return a canvas of so many pixels that is not in the page.
 *
 * @param {number} width
 * @param {number} height
 * @returns {HTMLCanvasElement}
 */
export function makeCanvas(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

/**
 * Append a new element to `parent` and return it.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {Element} parent
 * @param {K} tag
 * @param {string} [text]
 * @param {string} [className]
 * @returns {HTMLElementTagNameMap[K]}
 */
export function append(parent, tag, text = "", className = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  parent.append(element);
  return element;
}

/**
 * Set the properties that have other values: to set the same value anew may make a browser draw the page again.
 *
 * @template {object} T
 * @param {T} target
 * @param {Partial<T>} values
 */
export function setChanged(target, values) {
  for (const name of /** @type {(keyof T)[]} */ (Object.keys(values))) {
    const value = /** @type {T[keyof T]} */ (values[name]);
    if (target[name] !== value) target[name] = value;
  }
}

/**
 * Set the path of an SVG element where it is another one.
 *
 * @param {Element} element
 * @param {string} path
 */
export function setPath(element, path) {
  if (element.getAttribute("d") !== path) element.setAttribute("d", path);
}

/**
 * Download what a canvas shows as a PNG file named after a scene.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {string} name
 * @returns {Promise<void>}
 */
export async function savePng(canvas, name) {
  const blob = await new Promise((/** @type {(blob: Blob | null) => void} */ done) =>
    canvas.toBlob(done, "image/png"),
  );
  if (!blob) throw new Error("This browser could not encode the image.");
  saveBlob(blob, `${name.replace(/[^\p{L}\p{N}._-]+/gu, "_") || "scene"}.png`);
}

/**
 * Download a file.
 *
 * @param {Blob} blob
 * @param {string} name
 */
export function saveBlob(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Return whether the visitor prefers reduced motion. */
export function prefersReducedMotion() {
  return window.matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/**
 * Return the message of anything that was thrown.
 *
 * @param {unknown} error
 * @returns {string}
 */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}
