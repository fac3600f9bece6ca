// Shows the scenes in this page's address.

/** @import { SceneDescription } from "./layer.js" */
import { Cover } from "../scene/cover.js";
import { messageOf, query } from "../scene/dom.js";
import { acceptFiles } from "./drop.js";
import { Viewport } from "./viewport.js";

/** An error with a heading, for the visitor. */
class OpenError extends Error {
  /**
   * @param {string} heading
   * @param {string} message
   */
  constructor(heading, message) {
    super(message);
    this.heading = heading;
  }
}

/**
 * @param {string} id
 * @returns {Promise<SceneDescription>}
 */
async function describe(id) {
  const answer = await fetch(`scenes/${encodeURIComponent(id)}`);
  if (!answer.ok) throw new OpenError("This scene cannot be shown", (await answer.json()).error);
  return answer.json();
}

const ids = (new URLSearchParams(location.search).get("scenes") ?? "").split(",").filter(Boolean);

/** @param {HTMLElement} root */
async function openViewport(root) {
  if (!ids.length) throw new OpenError("No scene is open", "Start with: fieldmorph view FILE");
  return new Viewport(root, await Promise.all(ids.slice(0, 2).map(describe)));
}

const root = query(document, ".viewport", HTMLElement);
const cover = new Cover(root);

Object.assign(window, { fieldmorph: { root } });
openViewport(root).then(
  (viewport) => {
    Object.assign(window, { fieldmorph: viewport });
    cover.ready();
  },
  (error) => {
    const isKnown = error instanceof OpenError;
    if (!isKnown) console.error(error);
    cover.fail(isKnown ? error.heading : "Unexpected error", messageOf(error));
    if (!ids.length) acceptFiles(root);
  },
);
