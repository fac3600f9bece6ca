// Follows a scene that is being trained: images of an earlier state of it are images of another view.

/** @import { SceneDescription } from "./layer.js" */
/** @import { Viewport } from "./viewport.js" */
import { showTitles } from "./titles.js";

const LIVE_POLL_MS = 1500;

/**
 * Redraw whenever the server has a new state of one of these scenes; return at once where none is live.
 *
 * @param {Viewport} viewport
 * @param {SceneDescription[]} scenes
 */
export async function followTraining(viewport, scenes) {
  let known = scenes;
  while (known.some((scene) => scene.revision !== null)) {
    await new Promise((done) => setTimeout(done, LIVE_POLL_MS));
    const before = known.map((scene) => scene.revision).join();
    try {
      known = await Promise.all(known.map(async ({ id }) => (await fetch(`scenes/${id}`)).json()));
    } catch {
      return viewport.setStatus("The training has ended.", "failed");
    }
    showTitles(viewport.root, known);
    if (known.map((scene) => scene.revision).join() !== before) viewport.cameraMoved();
  }
}
