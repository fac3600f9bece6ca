// Requests of which only the latest matters.

/** @import { Failure } from "./gradio.js" */
import { messageOf, query } from "../scene/dom.js";

/**
 * Return a function that sends a request and shows its answer. One request is sent at a time; of those that wait in the
 * meantime only the latest is sent. A failure is shown in the element `.failed` below `root`.
 *
 * @template T
 * @template {Failure} A
 * @param {HTMLElement} root
 * @param {string} name of what is requested
 * @param {(request: T) => Promise<A>} send
 * @param {(answer: A, request: T) => void | Promise<void>} show
 * @returns {(request: T) => void}
 */
export function latestOnly(root, name, send, show) {
  const failed = query(root, ".failed", HTMLElement);
  let isBusy = false;
  /** @type {T[]} */
  let waiting = [];
  const run = async () => {
    isBusy = true;
    for (let request = waiting.pop(); request !== undefined; request = waiting.pop()) {
      waiting = [];
      try {
        const answer = await send(request);
        if (answer.error) throw new Error(answer.error);
        if (!waiting.length) await show(answer, request);
        failed.hidden = true;
      } catch (error) {
        failed.textContent = `The ${name} cannot be shown: ${messageOf(error) || "the server does not answer"}`;
        failed.hidden = false;
      }
    }
    isBusy = false;
  };
  return (request) => {
    waiting = [request];
    if (!isBusy) void run();
  };
}
