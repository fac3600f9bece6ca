// What stands next to the image of each scene: its name, its kind, how good it is, and its receipt.

/** @import { SceneDescription } from "./layer.js" */
import { query } from "../scene/dom.js";

/**
 * @param {HTMLElement} root
 * @param {SceneDescription[]} scenes one or two
 */
export function showTitles(root, scenes) {
  [".first", ".second"].forEach((place, i) => {
    const title = query(root, `.title${place}`, HTMLElement);
    const scene = scenes[i];
    title.hidden = !scene;
    if (!scene) return;
    query(title, "h1", HTMLElement).textContent = scene.name;
    query(title, ".kind", HTMLElement).textContent = scene.facts[0]?.[1] ?? "";
    query(title, ".quality", HTMLElement).textContent = scene.quality ?? "";
    const link = query(title, "a", HTMLAnchorElement);
    link.hidden = !scene.has_receipt;
    link.href = `scenes/${scene.id}/receipt`;
  });
}
