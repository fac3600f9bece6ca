// Shows the steps of the server's start, and opens the viewer as soon as it answers in place of this page.

import { append, query } from "../scene/dom.js";

const POLL_MS = 250;

/** @typedef {{ title: string, seconds: number | null }} Step */

const status = query(document, "[role=status]", HTMLElement);
const list = query(document, "ol", HTMLElement);

/** @param {Step[]} steps of which the last with seconds is under way */
function showSteps(steps) {
  const current = steps.findLastIndex(({ seconds }) => seconds !== null);
  list.replaceChildren();
  steps.forEach(({ title, seconds }, i) => {
    const item = append(list, "li", "", i < current ? "done" : i === current ? "current" : "");
    if (i === current) item.setAttribute("aria-current", "step");
    append(item, "span", title);
    append(item, "small", seconds === null ? "" : `${seconds.toFixed(1)} s`);
  });
}

async function poll() {
  try {
    const answer = await fetch("loading", { cache: "no-store" });
    if (!answer.ok) return location.reload(); // the viewer knows no such address: it is there
    showSteps((await answer.json()).steps);
  } catch {
    status.textContent = "The server does not answer. Its terminal shows why; this page continues to try.";
  }
  setTimeout(() => void poll(), POLL_MS);
}

void poll();
