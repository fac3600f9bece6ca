// A slider with a play button for each mode that the map does not show.

/** @import { Model } from "./gradio.js" */
import { append, query } from "../scene/dom.js";

const PLAY = "M4 2.5v11l9-5.5z";
const PAUSE = "M4 2.5h3v11H4zM9 2.5h3v11H9z";
const FRAME_MS = 160;

/** @typedef {{ mode: number, show: (stop: number) => void }} Slider */

/**
 * @param {HTMLElement} root
 * @param {Model} model
 * @param {(mode: number, stop: number) => void} onChange
 * @returns {Slider[]}
 */
export function makeSliders(root, model, onChange) {
  const parent = query(root, ".sliders", HTMLElement);
  return model.sliders.map((mode) => makeSlider(root, parent, model, mode, onChange));
}

/**
 * @param {HTMLElement} root
 * @param {HTMLElement} parent
 * @param {Model} model
 * @param {number} mode
 * @param {(mode: number, stop: number) => void} onChange
 * @returns {Slider}
 */
function makeSlider(root, parent, model, mode, onChange) {
  const { name, words } = model.modes[mode];
  const last = words.length - 1;
  const element = append(parent, "div", "", "slider");
  const play = append(element, "button");
  play.type = "button";
  append(element, "span", name);
  const input = append(element, "input");
  Object.assign(input, { type: "range", min: 0, max: last, value: model.place[mode], ariaLabel: name });
  const output = append(element, "output");
  element.hidden = last === 0 || !model.map;
  let timer = 0;
  const setPlaying = (/** @type {boolean} */ isPlaying) => {
    clearInterval(timer);
    timer = isPlaying ? setInterval(advance, FRAME_MS) : 0;
    play.innerHTML = `<svg viewBox="0 0 16 16"><path d="${isPlaying ? PAUSE : PLAY}"/></svg>`;
    play.setAttribute("aria-label", isPlaying ? "Pause" : `Play ${name}`);
  };
  const advance = () => {
    if (!root.isConnected) return setPlaying(false);
    onChange(mode, input.valueAsNumber === last ? 0 : input.valueAsNumber + 1);
  };
  play.addEventListener("click", () => setPlaying(!timer));
  input.addEventListener("input", () => {
    setPlaying(false);
    onChange(mode, input.valueAsNumber);
  });
  setPlaying(false);
  const show = (/** @type {number} */ stop) => {
    input.valueAsNumber = stop;
    input.setAttribute("aria-valuetext", words[stop]);
    output.textContent = words[stop];
  };
  return { mode, show };
}
