"use strict";
// Draws line charts as SVG and bar charts as HTML elements.

const CHART = {width: 560, height: 320, left: 52, right: 14, top: 12, bottom: 42};

// Return the ticks of an axis from `low` to `high`, and a function that maps its values to pixels between `from` and `to`.
function linearScale([low, high], from, to) {
  const power = 10 ** Math.floor(Math.log10((high - low || 1) / 6)), ticks = [];
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => (high - low || 1) / size <= 6) ?? 10 * power;
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
  return {ticks, place: (value) => from + (value - low) / (high - low || 1) * (to - from)};
}

function logScale([low, high], from, to) {
  const [first, last] = [Math.log10(low), Math.log10(high)], ticks = [];
  for (let k = Math.floor(first); k <= last; k++) {
    ticks.push(...(last - first > 2.5 ? [1] : [1, 2, 5]).map((factor) => factor * 10 ** k));
  }
  return {ticks: ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001),
    place: (value) => from + (Math.log10(value) - first) / (last - first || 1) * (to - from)};
}

function shortNumber(value) {
  return Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(0)
    : String(Number(value.toPrecision(4)));
}

// Return the smallest and the largest of the known values.
function extent(series, log) {
  const values = series.flatMap(({y}) => y.filter((value) => value !== null));
  const low = values.reduce((a, b) => Math.min(a, b), Infinity), high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (low > high) return log ? [0.1, 1] : [0, 1];
  if (low < high) return [low, high];
  return log ? [low / 2, high * 2] : [Math.min(low, 0), high || 1];
}

// Draw curves {name, x, y, colour, dashed}, with marks {x, name} and the curve names below. A missing value, null, is a gap in the
// curve; with a logarithmic scale, so is a value of 0.
function lineChart(target, {title, xLabel, yLabel, series, xRange, yRange = null, log = false, marks = [], dots = false,
  width = CHART.width}) {
  const {height, left, right, top, bottom} = CHART, foot = height - bottom;
  const curves = series.map((curve) => ({...curve, y: curve.y.map((value) => (log && value <= 0 ? null : value))}));
  const across = linearScale(xRange, left, width - right);
  const up = (log ? logScale : linearScale)(yRange ?? extent(curves, log), foot, top);
  const picture = svg("svg", {class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title});
  const line = (style, x1, x2, y1, y2) => picture.append(svg("line", {class: style, x1, x2, y1, y2}));
  const text = (x, y, anchor, words) => picture.append(svg("text", {x, y, "text-anchor": anchor}, words));
  for (const tick of across.ticks) {
    line("grid", across.place(tick), across.place(tick), top, foot);
    text(across.place(tick), foot + 16, "middle", shortNumber(tick));
  }
  for (const tick of up.ticks) {
    line("grid", left, width - right, up.place(tick), up.place(tick));
    text(left - 6, up.place(tick) + 4, "end", shortNumber(tick));
  }
  for (const {x, name} of marks) {
    const place = across.place(x), atEnd = place > width * 0.7;
    line("mark", place, place, top, foot);
    text(place + (atEnd ? -4 : 4), foot - 6, atEnd ? "end" : "start", name);
  }
  for (const {x, y, colour, dashed} of curves) {
    const points = y.map((value, k) => value !== null && `${across.place(x[k]).toFixed(1)} ${up.place(value).toFixed(1)}`);
    const path = (d, style) => picture.append(svg("path", {class: style, d, stroke: colour, "stroke-dasharray": dashed ? "6 4" : null}));
    path(points.map((point, k) => (point ? (points[k - 1] ? "L" : "M") + point : "")).join(""), "curve");
    // Subpaths without length are dots. A value between two gaps is always a dot.
    path(points.filter((point, k) => point && (dots || !(points[k - 1] || points[k + 1]))).map((point) => `M${point}h0`).join(""),
      "curve dots");
  }
  text((left + width - right) / 2, height - 8, "middle", xLabel);
  picture.append(svg("text", {transform: `translate(13 ${(top + foot) / 2}) rotate(-90)`, "text-anchor": "middle"}, yLabel));
  const legend = series.map(({name, colour, dashed}) => element("span", {},
    element("i", {style: `border-top: 3px ${dashed ? "dashed" : "solid"} ${colour}`}), name));
  target.replaceChildren(element("h3", {}, title), picture, element("div", {class: "chart-legend"}, ...legend));
}

// Draw bars {name, share (0 to 1), text, colour, key, click, pressed}.
function barChart(target, rows) {
  replace(target, element("div", {class: "bars"}, ...rows.flatMap(({name, share, text, colour, click, pressed, key = name}) => [
    click ? element("button", {type: "button", "data-key": key, "aria-pressed": String(Boolean(pressed)), click}, name)
      : element("span", {class: "name"}, name),
    element("div", {class: "bar", "data-key": key},
      element("i", {style: `width: ${(share * 62).toFixed(1)}%; background: ${colour}`}), element("span", {}, text))])));
}
