// Plots as SVG, drawn for the width that there is, so that their words keep their size on a phone.  Each has its numbers as a table.

import { h, s } from "./dom.js";

const FONT = 12; // pixels of a plot's words; a sign is about 0.6 of that wide

/**
 * A plot with its title, what it shows in words, and its numbers as a table.
 *
 * `draw(width)` gives {height, parts} for a width in pixels and is called again whenever that changes.
 */
export function figure({ title, level = "h3", text, legend, draw, numbers }) {
  const svg = s("svg", { role: "img", "aria-label": `${title}. ${text}` });
  const frame = h("div", { class: "plot" }, svg);
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(frame.clientWidth);
    if (!width || width === drawn) return;
    drawn = width;
    const { height, parts } = draw(width);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.replaceChildren(...parts.flat(Infinity).filter(Boolean));
  }).observe(frame);
  return h(
    "figure",
    null,
    h("figcaption", null, h(level, null, title), legend ? key(legend) : null),
    frame,
    h("p", { class: "quiet" }, text),
    numbers ? h("details", null, h("summary", null, "The numbers as a table"), numbers) : null,
  );
}

/** What the colours and shapes stand for: [class, shape, words]. */
export function key(entries) {
  return h(
    "ul",
    { class: "key" },
    entries.map(([kind, shape, words]) =>
      h("li", null, s("svg", { width: 22, height: 12, "aria-hidden": "true" }, SHAPES[shape](11, 6, kind)), words),
    ),
  );
}

const SHAPES = {
  line: (x, y, kind) => s("line", { class: kind, x1: x - 10, x2: x + 10, y1: y, y2: y }),
  bar: (x, y, kind) => s("rect", { class: kind, x: x - 9, y: y - 4, width: 18, height: 8, rx: 2 }),
  dot: (x, y, kind) => s("circle", { class: kind, cx: x, cy: y, r: 4 }),
  diamond: (x, y, kind) => diamond(x, y, kind),
};

export function diamond(x, y, kind, size = 5) {
  return s("path", { class: kind, d: `M${x} ${y - size}l${size} ${size}l${-size} ${size}l${-size} ${-size}z` });
}

/** Round numbers from `low` to `high`, about `n` of them. */
export function ticks(low, high, n) {
  const raw = (high - low || 1) / Math.max(1, n);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw * 0.999);
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9); tick * step <= high + step * 1e-9; tick++) found.push(Number((tick * step).toPrecision(12)));
  return found;
}

export function scale([low, high], [from, to]) {
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

export function words(x, y, text, attributes = {}) {
  return s("text", { x, y, "font-size": FONT, ...attributes }, text);
}

/**
 * Lines over whole numbers (songs, epochs): `series` are {kind, points: [[x, y or null]]}; a gap in a line stands for what is not
 * known.  Gives the parts and the scales, for whoever draws more into it.
 */
export function lines({ width, height, top = 10, series, xs, format, left = 44, xFormat = String, bottom = 26, isFromZero = false, xTitle }) {
  const values = series.flatMap((one) => one.points.map(([, y]) => y)).filter((y) => y !== null);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (!values.length) [low, high] = [0, 1];
  if (isFromZero) low = Math.min(0, low);
  if (low === high) [low, high] = [low - (Math.abs(low) * 0.1 || 0.5), high + (Math.abs(high) * 0.1 || 0.5)];
  const margin = isFromZero ? 0 : (high - low) * 0.08;
  const right = 12;
  const x = scale([xs[0], xs.at(-1)], xs[0] === xs.at(-1) ? [(left + width - right) / 2, width] : [left, width - right]);
  const y = scale([low - margin, high + (high - low) * 0.08], [top + height, top]);
  const most = Math.max(2, Math.floor((width - left) / 34));
  const every = Math.ceil(xs.length / most);
  const parts = [
    ticks(low - margin, high, 4).map((tick) => [
      s("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      words(left - 6, y(tick) + 4, format(tick), { "text-anchor": "end", class: "number" }),
    ]),
    bottom
      ? xs.filter((_, n) => n % every === 0).map((one) => words(x(one), top + height + 18, xFormat(one), { "text-anchor": "middle", class: "number" }))
      : null,
    xTitle ? words(width - right, top + height + 36, xTitle, { "text-anchor": "end" }) : null,
    series.map((one) => [
      s("path", { class: `${one.kind} stroke`, d: pathOf(one.points, x, y) }),
      one.dots === false ? null : one.points.filter(([, value]) => value !== null).map(([at, value]) => s("circle", { class: one.kind, cx: x(at), cy: y(value), r: 3 })),
    ]),
  ];
  return { parts, x, y, height: top + height + bottom + (xTitle ? 18 : 0) };
}

function pathOf(points, x, y) {
  let isDown = false;
  return points
    .map(([at, value]) => {
      if (value === null) {
        isDown = false;
        return "";
      }
      const command = `${isDown ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      isDown = true;
      return command;
    })
    .join("");
}

/** A bar for a cell of a table: `share` of the width, from 0 to 1; negative ones go to the left where `isSigned`. */
export function bar(kind, share, { isSigned = false } = {}) {
  const length = Math.min(1, Math.abs(share)) * (isSigned ? 50 : 100);
  const x = isSigned ? (share < 0 ? 50 - length : 50) : 0;
  return s(
    "svg",
    { class: "bar", width: "100%", height: 12, "aria-hidden": "true" },
    isSigned ? s("line", { class: "zero", x1: "50%", x2: "50%", y1: 0, y2: 12 }) : null,
    s("rect", { class: kind, x: `${x}%`, y: 1, width: `${Math.max(length, 0.4)}%`, height: 10, rx: 2 }),
  );
}
