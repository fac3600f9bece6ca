// Opens a file that is dropped on the page, or chosen, where no scene is open.

import { messageOf, query } from "../scene/dom.js";
import { sharedWindow } from "./address.js";

/** @param {HTMLElement} root */
export function acceptFiles(root) {
  const zone = query(root, ".drop", HTMLElement);
  const input = query(zone, "input", HTMLInputElement);
  const status = query(zone, ".drop-status", HTMLElement);
  zone.hidden = false;
  const open = async (/** @type {File | undefined} */ file) => {
    if (!file) return;
    zone.dataset.state = "busy";
    status.textContent = `Opening ${file.name} …`;
    try {
      const answer = await fetch(`files?name=${encodeURIComponent(file.name)}`, {
        method: "POST",
        body: file,
      });
      const message = await answer
        .json()
        .catch(() => ({ error: `The file could not be opened (${answer.status}).` }));
      if (!answer.ok) throw new Error(message.error);
      sharedWindow().document.querySelector(".facts-empty")?.remove(); // it says that nothing is open
      location.replace(`viewport?scenes=${encodeURIComponent(message.scene)}`);
    } catch (error) {
      zone.dataset.state = "failed";
      status.textContent = messageOf(error);
    }
  };
  input.addEventListener("change", () => void open(input.files?.[0]));
  root.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.dataset.state = "over";
  });
  root.addEventListener("dragleave", () => (zone.dataset.state = "idle"));
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    void open(event.dataTransfer?.files[0]);
  });
}
