"use strict";
// The report of a training run. The browser reloads it during training.

const data = readData();
const PATIENCE = 300; // seconds without an update until the page reports it
const LOSSES = [["loss", "total", "var(--ink)"], ["rpn_cls_loss", "RPN class", "var(--accent)"],
  ["rpn_box_loss", "RPN box", "var(--duplicate)"], ["roi_cls_loss", "RoI class", "var(--missed)"],
  ["roi_box_loss", "RoI box", "var(--localisation)"]];
const SHARES = [["data_wait", "waiting for data", "var(--localisation)"],
  ["rank_wait", "waiting for other ranks", "var(--class)"], ["all_reduce", "all-reduce", "var(--duplicate)"]];
const SCORES = [["AP", "AP", "var(--correct)"], ["AP50", "AP50", "var(--class)"], ["AP75", "AP75", "var(--localisation)"]];

function duration(seconds) {
  const minutes = Math.floor(seconds / 60), parts = [Math.floor(minutes / 60), minutes % 60, Math.floor(seconds % 60)];
  return parts.map((part, k) => (k ? String(part).padStart(2, "0") : part)).join(":");
}

function showState() {
  const colours = {running: "--accent", finished: "--correct", stopped: "--missed"};
  byId("state").textContent = data.state;
  byId("state").style.color = `var(${colours[data.state]})`;
  byId("reason").textContent = data.reason;
  byId("progress").max = data.total;
  byId("progress").value = data.step;
  const left = data.state === "running" && data.left !== null ? `, ${duration(data.left)} left` : "";
  const [epoch, epochs] = [data.step, data.total].map((steps) => steps / data.steps_per_epoch);
  byId("position").textContent = `epoch ${epoch.toFixed(2)} of ${epochs.toFixed(0)}, step `
    + `${data.step.toLocaleString("en")} of ${data.total.toLocaleString("en")}${left}`;
  const age = Date.now() / 1000 - data.written;
  const silent = data.state === "running" && age > PATIENCE
    ? `No news for ${duration(age)}: the run evaluates, or has ended without a word. ` : "";
  byId("about").textContent = `${silent}Written ${new Date(data.written * 1000).toLocaleString()}`
    + `${data.state === "running" ? `; the page loads itself again every ${data.refresh} seconds` : ""}. `;
  if (data.evaluated) byId("about").append(element("a", {href: "eval/report.html"}, "The report of the last evaluation"));
}

function seriesOf(rows, curves, x, text = (name) => name) {
  return rows.filter(([key]) => curves[key]?.some((value) => value !== null))
    .map(([key, name, colour]) => ({name: text(name, curves[key]), x, y: curves[key], colour}));
}

function lastKnown(values) {
  return values.filter((value) => value !== null).at(-1);
}

function withLast(name, values) {
  return `${name} ${shortNumber(Number(lastKnown(values).toPrecision(3)))}`;
}

function showCurves() {
  const {curves, evaluations} = data, x = curves.x ?? [];
  const common = {xLabel: "epoch", xRange: [0, Math.max(1, ...x, ...evaluations.epoch)], dots: x.length < 30};
  lineChart(byId("loss-chart"), {...common, width: 1180, title: "Losses", yLabel: "loss", log: true,
    series: seriesOf(LOSSES, curves, x, withLast)});
  lineChart(byId("rate-chart"), {...common, title: "Learning rate", yLabel: "rate", log: true,
    series: seriesOf([["lr", "learning rate", "var(--background)"]], curves, x, withLast)});
  const best = (name, values) => `${withLast(name, values)}, best ${fixed(Math.max(...values))}`; // Math.max treats null as 0
  const title = evaluations.epoch.length ? "Average precision" : "No evaluation so far";
  lineChart(byId("score-chart"), {...common, dots: true, title, yLabel: "AP", yRange: [0, 1],
    series: seriesOf(SCORES, evaluations, evaluations.epoch, best)});
  const speed = seriesOf([["images_per_second", "images a second", "var(--accent)"]], curves, x, withLast);
  lineChart(byId("speed-chart"), {...common, title: "Speed", yLabel: "images/s", series: speed,
    yRange: [0, 1.05 * Math.max(1e-3, ...speed.flatMap(({y}) => y))]});
  lineChart(byId("share-chart"), {...common, title: "Share of the time", yLabel: "share", yRange: [0, 1],
    series: seriesOf(SHARES, curves, x, (name, values) => `${name} ${(100 * lastKnown(values)).toFixed(0)}%`)});
}

byId("setting-table").append(element("tbody", {}, ...Object.entries(data.settings).map(([key, value]) =>
  element("tr", {}, element("td", {}, key), element("td", {}, value)))));
showState();
showCurves();
