"use strict";
// Draws line charts as SVG and bar charts as HTML elements.

const CHART = {width: 560, height: 320, left: 52, right: 14, top: 12, bottom: 42};

// Return a round step that divides a span into at most `most` parts.
function niceStep(span, most) {
  const power = 10 ** Math.floor(Math.log10(span / most));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => span / step <= most) ?? 10 * power;
}

function linearScale([low, high], from, to) {
  const step = niceStep(high - low || 1, 6), ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
  return {ticks, place: (value) => from + (value - low) / (high - low || 1) * (to - from)};
}

function logScale([low, high], from, to) {
  const [first, last] = [Math.log10(low), Math.log10(high)], ticks = [];
  const factors = last - first > 2.5 ? [1] : [1, 2, 5];
  for (let k = Math.floor(first); k <= last; k++) {
    ticks.push(...factors.map((factor) => factor * 10 ** k).filter((tick) => tick >= low * 0.999 && tick <= high * 1.001));
  }
  return {ticks, place: (value) => from + (Math.log10(value) - first) / (last - first || 1) * (to - from)};
}

function shortNumber(value) {
  return Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(0)
    : String(Number(value.toPrecision(4)));
}

// Return the smallest and the largest value; a logarithmic scale uses only positive values.
function extent(series, log) {
  let low = Infinity, high = -Infinity;
  for (const {y} of series) {
    for (const value of y) {
      if (value === null || (log && value <= 0)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (low > high) return log ? [0.1, 1] : [0, 1];
  if (low < high) return [low, high];
  return log ? [low / 2, high * 2] : [Math.min(low, 0), high || 1];
}

// A missing value leaves a gap in the curve. A value between two gaps becomes a dot.
function curvePath({x, y}, across, up, log) {
  let path = "", open = false;
  y.forEach((value, k) => {
    const known = value !== null && !(log && value <= 0);
    if (known) path += `${open ? "L" : "M"}${across.place(x[k]).toFixed(1)} ${up.place(value).toFixed(1)}`;
    const next = y[k + 1];
    if (known && !open && (next === null || next === undefined)) path += "h0.1";
    open = known;
  });
  return path;
}

// Draw curves {name, x, y, colour, dashed}, with marks {x, name} and the curve names below.
function lineChart(target, {title, xLabel, yLabel, series, xRange, yRange = null, log = false, marks = [], dots = false,
  width = CHART.width}) {
  const {height, left, right, top, bottom} = CHART;
  const across = linearScale(xRange, left, width - right);
  const up = (log ? logScale : linearScale)(yRange ?? extent(series, log), height - bottom, top);
  const picture = svg("svg", {class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title});
  for (const tick of across.ticks) {
    picture.append(svg("line", {class: "grid", x1: across.place(tick), x2: across.place(tick), y1: top, y2: height - bottom}),
      svg("text", {x: across.place(tick), y: height - bottom + 16, "text-anchor": "middle"}, shortNumber(tick)));
  }
  for (const tick of up.ticks) {
    picture.append(svg("line", {class: "grid", x1: left, x2: width - right, y1: up.place(tick), y2: up.place(tick)}),
      svg("text", {x: left - 6, y: up.place(tick) + 4, "text-anchor": "end"}, shortNumber(tick)));
  }
  for (const {x, name} of marks) {
    const place = across.place(x), end = place > width * 0.7;
    picture.append(svg("line", {class: "mark", x1: place, x2: place, y1: top, y2: height - bottom}),
      svg("text", {x: place + (end ? -4 : 4), y: height - bottom - 6, "text-anchor": end ? "end" : "start"}, name));
  }
  for (const curve of series) {
    picture.append(svg("path", {class: "curve", d: curvePath(curve, across, up, log), stroke: curve.colour,
      "stroke-dasharray": curve.dashed ? "6 4" : null, "stroke-linecap": "round"}));
    if (dots) {
      curve.y.forEach((value, k) => value !== null && !(log && value <= 0) && picture.append(
        svg("circle", {cx: across.place(curve.x[k]), cy: up.place(value), r: 3, fill: curve.colour})));
    }
  }
  picture.append(svg("text", {x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle"}, xLabel),
    svg("text", {transform: `translate(13 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle"}, yLabel));
  const line = ({colour, dashed}) => element("i", {style: `border-top: 3px ${dashed ? "dashed" : "solid"} ${colour}`});
  const legend = element("div", {class: "chart-legend"}, ...series.map((curve) => element("span", {}, line(curve), curve.name)));
  target.replaceChildren(element("h3", {}, title), picture, legend);
}

// Draw bars {name, share (0 to 1), text, colour, click, pressed}.
function barChart(target, rows) {
  replace(target, element("div", {class: "bars"}, ...rows.flatMap(({name, share, text, colour, click, pressed, key}) => [
    click ? element("button", {type: "button", "data-key": key, "aria-pressed": String(Boolean(pressed)), click}, name)
      : element("span", {class: "name"}, name),
    element("div", {class: "bar", "data-key": key},
      element("i", {style: `width: ${(share * 62).toFixed(1)}%; background: ${colour}`}), element("span", {}, text))])));
}
