"use strict";
// The report of two evaluations, A and B.

let change = ""; // filter of the images: "better", "worse", or empty for all

// Return how much lower the cost of an image is in B than in A.
function gain(image) {
  return detectors[0].costs[image] - detectors[1].costs[image];
}

const gallery = new Gallery(data.gallery, detectors, data.names, {
  order: (image) => Math.abs(gain(image)),
  caption: (image) => `${judgement(gain(image))}: cost ${detectors.map(({costs}) => costs[image].toFixed(2)).join(" → ")}`,
  keep: (image) => !change || change === judgement(gain(image)),
  changed: showNumbers,
});

function judgement(difference) {
  if (difference === 0) return "as good";
  return difference > 0 ? "better" : "worse";
}

// Return the columns of a number in A, in B, and their difference. `pair` is a function of a row, and `limit` the difference of a
// row below which a difference is unclear: null if every difference is, undefined if none is.
function columnsOf(title, pair, limit = () => undefined) {
  const difference = ([a, b]) => ([a, b].every((value) => value !== null && value >= 0) ? b - a : null);
  const unclear = (row) => difference(pair(row)) && (limit(row) === null || Math.abs(difference(pair(row))) < limit(row));
  const signed = (value) => (value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`);
  return [...LETTERS.map((letter, k) => ({title: `${title} ${letter}`, value: (row) => pair(row)[k],
    text: (row) => fixed(pair(row)[k])})),
  {title: "B − A", value: (row) => difference(pair(row)) ?? 0,
    text: (row) => signed(difference(pair(row))) + (unclear(row) ? " unclear" : ""),
    style: (row) => (unclear(row) || Math.abs(difference(pair(row))) < 0.0005 ? null : judgement(difference(pair(row))))}];
}

const numberTable = new SortedTable(byId("number-table"), [{title: "number", value: (row) => row.key},
  ...columnsOf("", (row) => detectors.map(({metrics}) => metrics[row.key]), (row) => data.limits.metrics[row.key])]);
const classTable = new SortedTable(byId("class-table"), [...classColumns(), ...[["AP", "ap"], ["AP50", "ap50"], ["F1", "f1"]]
  .flatMap(([title, key]) => columnsOf(title, ({each}) => each.map((one) => one[key]), ({k}) => data.limits[key]?.at(k)))]);

// Draw curves of both runs: rows of [name, key of a run's data, key of its curve].
function showCurves(id, title, yLabel, rows, more) {
  const series = data.runs.flatMap((run, k) => rows.filter(([, part, key]) => run[part][key]?.length).map(([name, part, key]) => (
    {name: `${name} ${LETTERS[k]}`, x: run[part].x ?? run[part].epoch, y: run[part][key], dashed: name !== rows[0][0],
      colour: `var(--${["accent", "localisation"][k]})`})));
  lineChart(byId(id), {title: series.length ? title : `${title}: not known`, yLabel, series, xLabel: "epoch",
    xRange: [0, Math.max(1, ...series.flatMap(({x}) => x))], ...more});
}

function showNumbers() {
  numberTable.show(Object.keys(detectors[0].metrics).map((key) => ({key})));
  showClasses(classTable);
  const counts = detectors.map((detector) => [...detector.detections(chosenClasses()), detector.boxes(chosenClasses()).at(-1)]);
  const most = Math.max(1, ...counts.flat().map(([, count]) => count));
  byId("error-bars").replaceChildren(...counts.map((rows, k) => {
    const bars = element("div");
    barChart(bars, rows.map(([name, count]) =>
      ({name, share: count / most, text: count.toLocaleString("en"), colour: `var(--${name})`})));
    return element("div", {}, element("h3", {}, LETTERS[k]), bars);
  }));
}

const changes = element("select", {id: "change", change: () => {
  change = changes.value;
  gallery.choose({});
}});
options(changes, [["", "better and worse"], ["better", "better in B"], ["worse", "worse in B"]]);
byId("kind").parentElement.before(element("label", {}, "Images ", changes));
byId("setting-note").textContent = data.settings ? `${counted(data.settings.length, "setting")} of A and B differ.`
  : "The settings are not known: a run has no config.yml.";
byId("setting-table").append(...[["", "A", "B"], ...data.settings ?? []].map((row) =>
  element("tr", {}, ...row.map((text) => element("td", {}, text)))));
showCurves("loss-chart", "Loss", "loss", [["loss", "curves", "loss"]], {log: true});
showCurves("score-chart", "Average precision in training", "AP", [["AP", "evaluations", "AP"], ["AP50", "evaluations", "AP50"]],
  {yRange: [0, 1], dots: true});
byId("about").textContent = `A: ${detectors[0].label}, B: ${detectors[1].label}, on ${counted(data.images, "image")} of `
  + `${data.annotations}.`;
start();
