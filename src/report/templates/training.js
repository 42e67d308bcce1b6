"use strict";
// The report of a training run. The browser reloads it during training.

const data = readData();
const PATIENCE = 300; // seconds without an update until the page reports it
const COLOURS = {running: "--accent", finished: "--correct", stopped: "--missed"};

function duration(seconds) {
  const minutes = Math.floor(seconds / 60), parts = [Math.floor(minutes / 60), minutes % 60, Math.floor(seconds % 60)];
  return parts.map((part, k) => (k ? String(part).padStart(2, "0") : part)).join(":");
}

function showState() {
  const running = data.state === "running", age = Date.now() / 1000 - data.written;
  byId("state").textContent = data.state;
  byId("state").style.color = `var(${COLOURS[data.state]})`;
  byId("reason").textContent = data.reason;
  Object.assign(byId("progress"), {max: data.total, value: data.step});
  const [epoch, epochs] = [data.step, data.total].map((steps) => steps / data.steps_per_epoch);
  byId("position").textContent = `epoch ${epoch.toFixed(2)} of ${epochs.toFixed(0)}, step ${data.step.toLocaleString("en")} of `
    + data.total.toLocaleString("en") + (running && data.left !== null ? `, ${duration(data.left)} left` : "");
  byId("about").textContent = (running && age > PATIENCE
    ? `No update for ${duration(age)}: the run is evaluating, or it was killed. ` : "")
    + `Last update: ${new Date(data.written * 1000).toLocaleString()}`
    + `${running ? `; the page reloads every ${data.refresh} seconds` : ""}. `;
  if (data.evaluated) byId("about").append(element("a", {href: "eval/report.html"}, "The report of the last evaluation"));
  byId("setting-table").append(element("tbody", {}, ...Object.entries(data.settings).map(([key, value]) =>
    element("tr", {}, element("td", {}, key), element("td", {}, value)))));
}

function last(values) {
  return values.filter((value) => value !== null).at(-1);
}

function withLast(name, values) {
  return `${name} ${shortNumber(Number(last(values).toPrecision(3)))}`;
}

// Draw the known curves of `rows`, [key, name, colour], over the epochs. `text` returns a curve's entry in the legend.
function showCurves(id, title, yLabel, rows, {source = data.curves, x = source.x ?? [], text = withLast, ...more} = {}) {
  const series = rows.filter(([key]) => source[key]?.some((value) => value !== null))
    .map(([key, name, colour]) => ({name: text(name, source[key]), x, y: source[key], colour: `var(--${colour})`}));
  const end = Math.max(1, ...data.curves.x ?? [], ...data.evaluations.epoch);
  lineChart(byId(id), {title, yLabel, series, xLabel: "epoch", xRange: [0, end], dots: x.length < 30, ...more});
}

showState();
showCurves("loss-chart", "Losses", "loss", [["loss", "total", "ink"], ["rpn_cls_loss", "RPN class", "accent"],
  ["rpn_box_loss", "RPN box", "duplicate"], ["roi_cls_loss", "RoI class", "missed"], ["roi_box_loss", "RoI box", "localisation"]],
{width: 1180, log: true});
showCurves("rate-chart", "Learning rate", "rate", [["lr", "learning rate", "background"]], {log: true});
showCurves("score-chart", data.evaluations.epoch.length ? "Average precision" : "No evaluation yet", "AP",
  [["AP", "AP", "correct"], ["AP50", "AP50", "class"], ["AP75", "AP75", "localisation"]],
  {source: data.evaluations, x: data.evaluations.epoch, dots: true, yRange: [0, 1], // Math.max treats null as 0
    text: (name, values) => `${withLast(name, values)}, best ${fixed(Math.max(...values))}`});
showCurves("speed-chart", "Speed", "images/s", [["images_per_second", "images per second", "accent"]],
  {yRange: [0, 1.05 * Math.max(1e-3, ...data.curves.images_per_second ?? [])]});
showCurves("share-chart", "Share of the time", "share", [["data_wait", "waiting for data", "localisation"],
  ["rank_wait", "waiting for other ranks", "class"], ["all_reduce", "all-reduce", "duplicate"]],
{yRange: [0, 1], text: (name, values) => `${name} ${(100 * last(values)).toFixed(0)}%`});
