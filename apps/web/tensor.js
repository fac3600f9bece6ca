// The tensor tab: what the server looked up is drawn, clicked and played here. `element`, `props` and `server` are Gradio's.
const model = props.value;
const root = element.querySelector(".explorer");
const find = (selector) => root.querySelector(selector);
const add = (parent, tag, text = "", names = "") => {
  const made = document.createElement(tag);
  if (names) made.className = names;
  made.textContent = text;
  parent.append(made);
  return made;
};
const state = { show: "mean", place: [...model.place], along: model.along, picks: 5 };
const plot = find(".plot"), canvas = find("canvas"), cells = document.createElement("canvas");
const [nx, ny] = model.map ? model.map.size : [0, 0];
let levels = null; // of the map that is shown, 0 to 255, the upper row first
let axis = null; // of the curve that is shown

// At most one question of a kind is on its way; of those that wait only the latest is asked.
const latest = (name, ask, show) => {
  let busy = false, waiting = null;
  const run = async () => {
    busy = true;
    while (waiting) {
      const asked = waiting;
      waiting = null;
      try {
        const answer = await ask(asked);
        if (answer.error) throw new Error(answer.error);
        if (!waiting) await show(answer, asked);
        find(".failed").hidden = true;
      } catch (error) {
        find(".failed").textContent = "The " + name + " cannot be shown: " + (error.message || "the server does not answer");
        find(".failed").hidden = false;
      }
    }
    busy = false;
  };
  return (asked) => {
    waiting = asked;
    return busy ? null : run();
  };
};

// The map.
const maps = new Map();
const mapOf = async (asked) => {
  const key = JSON.stringify([asked.show, model.sliders.map((k) => asked.place[k])]);
  if (!maps.has(key)) maps.set(key, await server.tensor_map(asked));
  if (maps.size > 300) maps.delete(maps.keys().next().value);
  return maps.get(key);
};
const askMap = latest("map", mapOf, async (answer, asked) => {
  const picture = new Image();
  picture.src = "data:image/png;base64," + answer.png;
  await picture.decode();
  cells.width = nx;
  cells.height = ny;
  const context = cells.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const pixels = context.getImageData(0, 0, nx, ny), colours = model.map.scales[asked.show].colours;
  levels = new Uint8Array(nx * ny);
  for (let i = 0; i < levels.length; i++) {
    levels[i] = pixels.data[4 * i];
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = colours[3 * levels[i] + c];
  }
  context.putImageData(pixels, 0, 0);
  draw();
});
const draw = () => {
  const sharp = Math.min(window.devicePixelRatio || 1, 2);
  canvas.width = Math.round(plot.clientWidth * sharp);
  canvas.height = Math.round(plot.clientHeight * sharp);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  if (levels) context.drawImage(cells, 0, 0, canvas.width, canvas.height);
};
const cellAt = (event) => {
  const box = plot.getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * nx), y = Math.floor(((box.bottom - event.clientY) / box.height) * ny);
  return [Math.min(Math.max(x, 0), nx - 1), Math.min(Math.max(y, 0), ny - 1)];
};
const at = (mark, [x, y]) => {
  mark.style.left = (100 * (x + 0.5)) / nx + "%";
  mark.style.bottom = (100 * (y + 0.5)) / ny + "%";
};
const shownScale = () => model.map.scales[state.show === "next" ? "sd" : state.show];
const scaleUp = () => {
  const { name, colours, ticks } = shownScale(), stops = [];
  for (let i = 0; i < 256; i += 15) stops.push("rgb(" + colours.slice(3 * i, 3 * i + 3).join(" ") + ")");
  find(".scale .name").textContent = name;
  find(".scale .colours").style.background = "linear-gradient(90deg, " + stops.join(", ") + ")";
  find(".scale .numbers").replaceChildren();
  for (const [share, text] of ticks) add(find(".scale .numbers"), "span", text).style.left = 100 * share + "%";
};

// The curve, and where on it the slider is.
const askCurve = latest("curve", (asked) => server.tensor_curve(asked), (answer, asked) => {
  find(".drawn").innerHTML = answer.svg;
  find(".where").textContent = answer.where;
  find(".told").textContent = answer.told;
  axis = { ...answer.axis, mode: asked.along };
  mark();
});
const mark = () => {
  const shown = axis && axis.mode === state.along;
  find(".now").hidden = !shown;
  if (shown) find(".now").style.left = 100 * (axis.left + (axis.right - axis.left) * axis.stops[state.place[axis.mode]]) + "%";
};
const curveWidth = () => Math.round(find(".plotted").clientWidth);

// Where to measure next.
const askNext = latest("design", (asked) => server.tensor_next(asked), (answer) => {
  find(".picks p").textContent = answer.told;
  find(".picks ol").replaceChildren();
  find(".pins").replaceChildren();
  answer.places.forEach((place, i) => {
    const pin = add(find(".pins"), "button", String(i + 1)), row = add(add(find(".picks ol"), "li"), "button");
    at(pin, [place[model.across], place[model.up]]);
    pin.title = answer.words[i];
    add(row, "b", String(i + 1));
    row.append(answer.words[i]);
    for (const button of [pin, row]) {
      button.type = "button";
      button.onclick = (event) => {
        event.stopPropagation();
        go(place);
      };
    }
  });
});

const go = (place) => {
  const moved = model.sliders.some((k) => place[k] !== state.place[k]);
  state.place = [...place];
  refresh(moved);
};
const refresh = (map = true) => {
  const next = state.show === "next", asked = { place: [...state.place] };
  root.querySelectorAll(".slider").forEach((slider, i) => {
    const k = model.sliders[i];
    slider.querySelector("input").value = state.place[k];
    slider.querySelector("output").textContent = model.modes[k].words[state.place[k]];
    slider.querySelector("input").setAttribute("aria-valuetext", model.modes[k].words[state.place[k]]);
  });
  mark();
  askCurve({ ...asked, along: state.along, width: curveWidth() });
  if (!model.map) return;
  at(find(".place"), [state.place[model.across], state.place[model.up]]);
  find(".many").hidden = find(".picks").hidden = !next;
  if (map) {
    askMap({ ...asked, show: next ? "sd" : state.show });
    find(".pins").replaceChildren();
    if (next) {
      find(".picks p").textContent = "Looking for the places that would tell most ...";
      find(".picks ol").replaceChildren();
      askNext({ ...asked, n: state.picks });
    }
  }
};

// Controls.
for (const button of root.querySelectorAll(".modes button")) {
  button.onclick = () => {
    state.show = button.dataset.show;
    for (const other of root.querySelectorAll(".modes button")) other.setAttribute("aria-checked", String(other === button));
    scaleUp();
    refresh();
  };
}
const choices = (select, texts, chosen, change) => {
  texts.forEach(([value, text]) => (add(select, "option", text).value = value));
  select.value = chosen;
  select.onchange = () => change(Number(select.value));
};
choices(find(".many select"), [1, 2, 3, 5, 8, 12].map((n) => [n, n]), state.picks, (n) => {
  state.picks = n;
  refresh();
});
choices(find(".curve select"), model.modes.map((mode, k) => [k, mode.name]), state.along, (k) => {
  state.along = k;
  refresh(false);
});
const PLAY = "M4 2.5v11l9-5.5z", PAUSE = "M4 2.5h3v11H4zM9 2.5h3v11H9z";
for (const k of model.sliders) {
  const slider = add(find(".sliders"), "div", "", "slider"), last = model.modes[k].words.length - 1;
  const play = add(slider, "button");
  play.type = "button";
  add(slider, "span", model.modes[k].name);
  const input = add(slider, "input");
  Object.assign(input, { type: "range", min: 0, max: last, value: state.place[k], ariaLabel: model.modes[k].name });
  add(slider, "output");
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.innerHTML = '<svg viewBox="0 0 16 16"><path d="' + PLAY + '"/></svg>';
    play.setAttribute("aria-label", "Play " + model.modes[k].name);
  };
  stop();
  play.onclick = () => {
    if (timer !== null) return stop();
    play.innerHTML = '<svg viewBox="0 0 16 16"><path d="' + PAUSE + '"/></svg>';
    play.setAttribute("aria-label", "Pause");
    timer = setInterval(() => {
      if (!root.isConnected) return stop();
      const place = [...state.place];
      place[k] = place[k] === last ? 0 : place[k] + 1;
      go(place);
    }, 160);
  };
  input.oninput = () => {
    stop();
    const place = [...state.place];
    place[k] = Number(input.value);
    go(place);
  };
  slider.hidden = last === 0 || !model.map;
}
plot.onclick = (event) => {
  const place = [...state.place];
  [place[model.across], place[model.up]] = cellAt(event);
  go(place);
};
plot.onkeydown = (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (!step) return;
  event.preventDefault();
  const far = event.shiftKey ? 10 : 1, place = [...state.place];
  [model.across, model.up].forEach((k, i) => (place[k] = Math.min(Math.max(place[k] + far * step[i], 0), [nx, ny][i] - 1)));
  go(place);
};
plot.onpointermove = (event) => {
  const tip = find(".tip"), [x, y] = cellAt(event), box = plot.getBoundingClientRect();
  tip.hidden = !levels || event.pointerType === "touch";
  if (tip.hidden) return;
  const { low, high, digits, unit } = shownScale();
  const value = (low + (levels[(ny - 1 - y) * nx + x] * (high - low)) / 255).toFixed(digits);
  tip.textContent = value + unit + " at " + model.modes[model.up].words[y] + ", " + model.modes[model.across].words[x];
  tip.style.left = event.clientX - box.left + "px";
  tip.style.top = Math.max(event.clientY - box.top, 44) + "px";
  tip.style.setProperty("--side", event.clientX > box.left + box.width / 2 ? "calc(-100% - 12px)" : "12px");
};
plot.onpointerleave = () => (find(".tip").hidden = true);
find(".plotted").onclick = (event) => {
  if (!axis) return;
  const box = find(".plotted").getBoundingClientRect();
  const share = ((event.clientX - box.left) / box.width - axis.left) / (axis.right - axis.left);
  let nearest = 0;
  axis.stops.forEach((stop, i) => {
    if (Math.abs(stop - share) < Math.abs(axis.stops[nearest] - share)) nearest = i;
  });
  const place = [...state.place];
  place[axis.mode] = nearest;
  go(place);
};

// What stands there from the start.
add(find(".about"), "strong", model.title);
find(".about").append(" " + model.about);
root.toggleAttribute("data-wide", !model.map || model.map.ratio > 2);
find(".modes").hidden = !model.map;
if (model.map) {
  find(".map").hidden = false;
  for (const side of ["x", "y"]) {
    const ticks = find(".ticks." + side);
    find(".axis." + side).textContent = model.map.names[side];
    for (const [share, text] of model.map.ticks[side]) {
      add(ticks, "span", text).style[side === "x" ? "left" : "bottom"] = 100 * share + "%";
      if (side === "y") add(ticks, "b", text); // as wide as the widest
    }
  }
  scaleUp();
}
const fit = () => {
  if (!model.map || !plot.clientWidth) return;
  const widest = window.innerWidth < 620 ? 2 : 4.2, narrowest = plot.clientWidth / (0.62 * window.innerHeight);
  plot.style.setProperty("--ratio", Math.min(Math.max(model.map.ratio, narrowest, 0.7), Math.max(widest, narrowest)));
  draw();
};
let width = 0;
new ResizeObserver(() => {
  const now = curveWidth();
  if (!now || Math.abs(now - width) < 24) return fit();
  width = now;
  fit();
  refresh(levels === null);
}).observe(find(".plotted"));
root.dataset.state = "ready";
server.tensor_figures({}).then((answer) => {
  for (const { title, told, figures } of answer.sections || []) {
    const section = add(find(".figures"), "section");
    add(section, "h3", title);
    add(section, "p", told);
    add(section, "div").innerHTML = figures.join("");
  }
});
