// Where to measure next: places on the map and in a list.

/** @import { DesignAnswer, DesignRequest, Model, Server } from "./gradio.js" */
/** @import { MapView } from "./map.js" */
import { append, query } from "../scene/dom.js";
import { latestOnly } from "./latest.js";

export class DesignView {
  /**
   * @param {HTMLElement} root
   * @param {Model} model
   * @param {Server} server
   * @param {MapView} map
   * @param {(place: number[]) => void} onChoose
   */
  constructor(root, model, server, map, onChoose) {
    this.model = model;
    this.map = map;
    this.onChoose = onChoose;
    this.panel = query(root, ".picks", HTMLElement);
    this.count = query(root, ".many", HTMLElement);
    this.pins = query(root, ".pins", HTMLElement);
    this.list = query(this.panel, "ol", HTMLElement);
    this.text = query(this.panel, "p", HTMLElement);
    /** @type {(request: DesignRequest) => void} */
    this.send = latestOnly(
      root,
      "design",
      (request) => server.tensor_next(request),
      (answer) => this.show(answer),
    );
  }

  /** @param {boolean} isVisible */
  toggle(isVisible) {
    this.panel.hidden = this.count.hidden = !isVisible;
  }

  clear() {
    this.pins.replaceChildren();
  }

  /** @param {DesignRequest} request */
  request(request) {
    this.text.textContent = "Searching for the most informative places …";
    this.list.replaceChildren();
    this.send(request);
  }

  /** @param {DesignAnswer} answer */
  show(answer) {
    this.text.textContent = answer.summary;
    this.list.replaceChildren();
    this.clear();
    answer.places.forEach((place, i) => this.addPlace(place, answer.words[i], String(i + 1)));
  }

  /**
   * @param {number[]} place
   * @param {string} words
   * @param {string} number
   */
  addPlace(place, words, number) {
    const { across, up } = this.model;
    const pin = append(this.pins, "button", number);
    const row = append(append(this.list, "li"), "button");
    this.map.moveTo(pin, [place[across ?? 0], place[up ?? 0]]);
    pin.title = words;
    append(row, "b", number);
    row.append(words);
    for (const button of [pin, row]) {
      button.type = "button";
      button.addEventListener("click", (event) => {
        event.stopPropagation();
        this.onChoose(place);
      });
    }
  }
}
