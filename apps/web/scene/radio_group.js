// A row of buttons of which one is chosen.

import { queryAll } from "./dom.js";

/** @template {string} T */
export class RadioGroup {
  /**
   * @param {HTMLElement} element with buttons of role "radio"
   * @param {string} key of the buttons' `dataset` that holds their values
   * @param {NoInfer<T>} value
   * @param {(value: T) => void} onChoose
   */
  constructor(element, key, value, onChoose) {
    this.element = element;
    this.key = key;
    /** @type {T} */
    this.value = value;
    this.onChoose = onChoose;
    this.buttons = queryAll(element, "[role=radio]", HTMLElement);
    this.values = this.buttons.map((button) => /** @type {T} */ (button.dataset[key]));
    this.buttons.forEach((button, i) => button.addEventListener("click", () => this.choose(this.values[i])));
    element.addEventListener("keydown", (event) => this.moveFocus(event));
    this.show();
  }

  /** @param {T} value */
  choose(value) {
    this.value = value;
    this.show();
    this.onChoose(value);
  }

  /**
   * Choose the next or the previous value by an arrow key.
   *
   * @param {KeyboardEvent} event
   */
  moveFocus(event) {
    if (!event.key.startsWith("Arrow") || event.ctrlKey || event.altKey || event.metaKey) return;
    const by = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : this.values.length - 1;
    const next = (this.values.indexOf(this.value) + by) % this.values.length;
    this.choose(this.values[next]);
    this.buttons[next].focus();
    event.preventDefault();
    event.stopPropagation();
  }

  show() {
    this.buttons.forEach((button, i) => {
      const isChosen = this.values[i] === this.value;
      button.setAttribute("aria-checked", String(isChosen));
      button.tabIndex = isChosen ? 0 : -1;
    });
  }
}
