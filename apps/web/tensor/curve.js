// The curve of a tensor model along one mode, and where on it the chosen place is.

/** @import { CurveAnswer, CurveAxis, CurveRequest, Server } from "./gradio.js" */
import { query } from "../scene/dom.js";
import { latestOnly } from "./latest.js";

export class CurveView {
  /**
   * @param {HTMLElement} root
   * @param {Server} server
   * @param {(mode: number, stop: number) => void} onChoose called with a stop along a mode that the visitor chose
   */
  constructor(root, server, onChoose) {
    this.root = root;
    this.onChoose = onChoose;
    this.plotted = query(root, ".plotted", HTMLElement);
    /** @type {(CurveAxis & { mode: number }) | null} */
    this.axis = null;
    /** @type {CurveRequest} */
    this.wanted = { place: [], along: 0, width: 0 };
    /** @type {(request: CurveRequest) => void} */
    this.send = latestOnly(
      root,
      "curve",
      (request) => server.tensor_curve(request),
      (answer, request) => this.show(answer, request),
    );
    this.plotted.addEventListener("click", (event) => this.choose(event));
  }

  get width() {
    return Math.round(this.plotted.clientWidth);
  }

  /**
   * @param {number[]} place
   * @param {number} along index of a mode
   */
  request(place, along) {
    this.wanted = { place, along, width: this.width };
    this.showMark();
    this.send(this.wanted);
  }

  /**
   * @param {CurveAnswer} answer
   * @param {CurveRequest} request
   */
  show(answer, request) {
    query(this.root, ".drawn", HTMLElement).innerHTML = answer.svg;
    query(this.root, ".where", HTMLElement).textContent = answer.where;
    query(this.root, ".reading", HTMLElement).textContent = answer.reading;
    this.axis = { ...answer.axis, mode: request.along };
    this.showMark();
  }

  showMark() {
    const { axis, wanted } = this;
    const mark = query(this.root, ".now", HTMLElement);
    mark.hidden = axis?.mode !== wanted.along;
    if (!axis || mark.hidden) return;
    const fraction = axis.left + (axis.right - axis.left) * axis.stops[wanted.place[axis.mode]];
    mark.style.left = `${100 * fraction}%`;
  }

  /** @param {MouseEvent} event */
  choose(event) {
    const { axis } = this;
    if (!axis) return;
    const box = this.plotted.getBoundingClientRect();
    const fraction = ((event.clientX - box.left) / box.width - axis.left) / (axis.right - axis.left);
    const distances = axis.stops.map((stop) => Math.abs(stop - fraction));
    this.onChoose(axis.mode, distances.indexOf(Math.min(...distances)));
  }
}
