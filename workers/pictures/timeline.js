"use strict";
// Looks into a timeline: zooms by buttons, keys and a dragged range, and says what lies under the
// pointer. Draws as timeline.py does. Without it the picture stays as it is.

const NEAR_PX = 0.4, LEAST_PX = 0.5, LEAST_S = 1e-5;

for (const box of document.querySelectorAll(".timeline")) {
  const source = box.querySelector('script[type="application/json"]');
  if (source) look(box, JSON.parse(source.textContent));
}

function look(box, data) {
  const svg = box.querySelector("svg"), axis = svg.querySelector(".axis");
  const bar = document.createElement("div"), said = document.createElement("output");
  const band = element("rect", { class: "hit band", y: data.top, width: 0,
    height: data.row * data.tracks.length });
  let from = 0, to = data.end, held = null;

  bar.className = "bar";
  for (const [text, name, move] of [
    ["+", "zoom in", () => zoom(0.5)], ["\u2212", "zoom out", () => zoom(2)],
    ["\u2190", "earlier", () => shift(-0.25)], ["\u2192", "later", () => shift(0.25)],
    ["all", "the whole run", () => show(0, data.end)],
  ]) {
    const button = document.createElement("button");
    button.textContent = text;
    button.title = name;
    button.setAttribute("aria-label", name);
    button.addEventListener("click", move);
    bar.append(button);
  }
  said.textContent = "drag over a range to look into it; point at a span to see what it is";
  bar.append(said);
  box.querySelector(".scroll").before(bar);
  svg.append(band);
  svg.tabIndex = 0;
  svg.addEventListener("dblclick", () => show(0, data.end));
  svg.addEventListener("keydown", event => {
    const move = { "+": () => zoom(0.5), "-": () => zoom(2), ArrowLeft: () => shift(-0.25),
      ArrowRight: () => shift(0.25), 0: () => show(0, data.end) }[event.key];
    if (move) { event.preventDefault(); move(); }
  });
  svg.addEventListener("pointerdown", event => {
    if (event.button === 0 && event.pointerType !== "touch") held = place(event).x;
  });
  svg.addEventListener("pointermove", event => {
    const at = place(event);
    if (held !== null) stretch(held, at.x);
    said.textContent = under(at);
  });
  window.addEventListener("pointerup", event => {
    if (held === null) return;
    const start = Math.min(held, place(event).x), end = Math.max(held, place(event).x);
    held = null;
    stretch(0, 0);
    if (end - start > 4) show(time(start), time(end));
  });

  function place(event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return { x: Math.min(Math.max(at.x, data.left), data.right), y: at.y };
  }
  function time(x) { return from + (x - data.left) / (data.right - data.left) * (to - from); }
  function pixel(s) { return data.left + (s - from) / (to - from) * (data.right - data.left); }
  function stretch(a, b) {
    band.setAttribute("x", Math.min(a, b));
    band.setAttribute("width", Math.abs(b - a));
  }
  function zoom(by) {
    const middle = (from + to) / 2, half = (to - from) / 2 * by;
    show(middle - half, middle + half);
  }
  function shift(by) {
    const width = to - from, start = Math.min(Math.max(from + by * width, 0), data.end - width);
    show(start, start + width);
  }
  function show(start, end) {
    from = Math.max(start, 0);
    to = Math.max(Math.min(end, data.end), from + LEAST_S);
    for (const path of svg.querySelectorAll("path[data-track]")) {
      const track = Number(path.dataset.track), kind = Number(path.dataset.kind);
      path.setAttribute("d", outline(data.tracks[track].spans.filter(span => span[3] === kind),
        data.top + data.row * track + 3));
    }
    marks();
  }
  function outline(spans, top) {
    const boxes = [];
    for (const [start, length] of spans) {
      if ((start + length) / 1e6 < from || start / 1e6 > to) continue;
      const left = Math.max(pixel(start / 1e6), data.left);
      const right = Math.max(Math.min(pixel((start + length) / 1e6), data.right), left + LEAST_PX);
      const last = boxes[boxes.length - 1];
      if (last && left - last[1] < NEAR_PX) last[1] = Math.max(last[1], right);
      else boxes.push([left, right]);
    }
    return boxes.map(([left, right]) =>
      `M${left.toFixed(1)} ${top}h${(right - left).toFixed(1)}v${data.bar}H${left.toFixed(1)}z`
    ).join("") || "M0 0";
  }
  function marks() {
    const bottom = data.top + data.row * data.tracks.length, rough = (to - from) / 5;
    const scale = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map(s => s * scale).find(s => s >= rough);
    const title = axis.lastElementChild;
    axis.replaceChildren();
    for (let n = Math.ceil(from / step); n * step <= to; n++) {
      const x = pixel(n * step);
      axis.append(element("path", { class: "grid", d: `M${x} ${data.top}V${bottom}` }));
      axis.append(element("text", { class: "t", x, y: bottom + 15, "text-anchor": "middle" },
        length(n * step, step)));
    }
    axis.append(title);
  }
  function under(at) {
    const number = Math.floor((at.y - data.top) / data.row), now = time(at.x);
    const track = data.tracks[number];
    if (!track) return length(now, to - from);
    const near = (to - from) / (data.right - data.left);
    const hits = track.spans.filter(([start, long]) =>
      start / 1e6 - near <= now && now <= (start + long) / 1e6 + near);
    const what = hits.length > 1 ? hits.reduce((a, b) => a[1] < b[1] ? a : b) : hits[0];
    if (!what) return `${track.name} at ${length(now, to - from)}`;
    const [start, long, label, kind] = what;
    return `${track.name} at ${length(start / 1e6, to - from)}, for ${length(long / 1e6, long / 1e6)}: ` +
      `${data.kinds[kind]}, ${data.labels[label]}`;
  }
}

function element(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function length(s, scale) {
  const [unit, factor] = scale >= 1 ? ["s", 1] : scale >= 1e-3 ? ["ms", 1e3] : ["\u00b5s", 1e6];
  return `${Number((s * factor).toPrecision(6)).toLocaleString("en-US")} ${unit}`;
}
