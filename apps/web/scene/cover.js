// The notice that covers a scene while it is loaded, while it waits and when it failed.

import { query } from "./dom.js";

export class Cover {
  /** @param {HTMLElement} root with the states "loading", "ready", "waiting" and "failed" in `data-state` */
  constructor(root) {
    this.root = root;
    this.notice = query(root, ".notice", HTMLElement);
  }

  /**
   * @param {number} fraction
   * @param {string} activity
   */
  progress(fraction, activity) {
    const percent = Math.round(100 * fraction);
    query(this.notice, "p", HTMLElement).textContent = `${activity} …`;
    const bar = query(this.notice, ".progress", HTMLElement);
    bar.setAttribute("aria-valuenow", String(percent));
    query(bar, "i", HTMLElement).style.width = `${percent}%`;
  }

  ready() {
    this.root.dataset.state = "ready";
  }

  /**
   * @param {string} heading
   * @param {string} text
   */
  wait(heading, text) {
    this.show("waiting", heading, text);
  }

  /**
   * @param {string} heading
   * @param {string} text
   */
  fail(heading, text) {
    this.show("failed", heading, text);
    this.notice.setAttribute("role", "alert");
  }

  /**
   * @param {string} state
   * @param {string} heading
   * @param {string} text
   */
  show(state, heading, text) {
    this.root.dataset.state = state;
    query(this.notice, "h1", HTMLElement).textContent = heading;
    query(this.notice, "p", HTMLElement).textContent = text;
  }
}
