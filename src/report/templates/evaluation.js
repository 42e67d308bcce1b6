"use strict";
// The report of one evaluation.

const data = readData();
const truth = new Truth(data.truth);
const detector = new Detector(data.detectors[0], truth, data.names.length);
const allClasses = data.names.map((_, k) => k);
const MATRIX_CLASSES = 24; // with more classes, only classes with the most errors are shown

const gallery = new Gallery(data, [detector], data.names, {
  order: (image) => detector.costs[image],
  caption: (image) => `cost ${detector.costs[image].toFixed(2)}`,
});

const classTable = new SortedTable(byId("class-table"), [
  {title: "class", value: (row) => row.name, click: (row) => gallery.toggleClass(row.k)},
  {title: "boxes", value: (row) => row.boxes, text: (row) => row.boxes.toLocaleString("en")},
  ...[["AP", "ap"], ["AP50", "ap50"], ["AP75", "ap75"]].map(numberColumn),
  {title: "detections", value: (row) => row.detections, text: (row) => row.detections.toLocaleString("en")},
  ...[["precision", "precision"], ["recall", "recall"], ["F1", "f1"], ["best F1", "best_f1"], ["at score", "best_score"]]
    .map(numberColumn),
]);

function numberColumn([title, key]) {
  return {title, value: (row) => row[key], text: (row) => fixed(row[key])};
}

function setThreshold(value) {
  byId("score").value = value;
  byId("score-value").textContent = Math.fround(value).toFixed(3);
  detector.count(value);
  showAll();
}

function showAbout() {
  const skipped = data.skipped ? `; ${counted(data.skipped, "image")} could not be read and are not scored` : "";
  byId("about").textContent = `${detector.label ? `${detector.label}, on ` : ""}${counted(data.images, "image")} of `
    + `${data.annotations}, with ${counted(truth.length, "annotated box", "annotated boxes")}; `
    + `${counted(detector.length, "detection")}${skipped}.`;
  byId("numbers").replaceChildren(...Object.entries(detector.metrics).map(([key, value]) =>
    element("div", {}, element("dt", {}, key), element("dd", {"data-key": key, "data-value": value}, fixed(value)))));
  const few = gallery.images.length < data.images ? `In this file are the ${gallery.images.length} images, of `
    + `${data.images.toLocaleString("en")}, that cost most with the score of the best F1. ` : "";
  byId("gallery-note").textContent = "The most expensive errors come first: the cost of an image is the sum of the scores of its "
    + `false detections, and 1 for each annotated box that was not found. ${few}Click an image to enlarge it.`;
}

function showClasses() {
  const rows = allClasses.map((k) => ({k, ...detector.classes[k], ...detector.scores([k])}));
  const all = {k: -1, ...detector.classes.at(-1), ...detector.scores(allClasses)};
  classTable.show(rows, all, (row) => row.k === gallery.filter.category);
}

function showCurves() {
  const chosen = detector.classes.at(gallery.filter.category), scores = chosen.f1.map((_, k) => k / 100); // at(-1): all classes
  const square = {xRange: [0, 1], yRange: [0, 1]};
  const series = [["0.50", chosen.ap50], ["0.75", chosen.ap75]].map(([iou, ap], k) => ({name: `IoU ${iou}: AP ${fixed(ap)}`,
    x: scores, y: chosen.precision ? chosen.precision[k] : scores.map(() => null), colour: "var(--accent)", dashed: k === 1}));
  lineChart(byId("precision-recall"), {title: `Precision and recall: ${chosen.name}`, xLabel: "recall", yLabel: "precision",
    series, ...square});
  const marks = [{x: detector.threshold, name: `chosen ${detector.threshold.toFixed(2)}`}];
  if (chosen.best_score !== null) marks.unshift({x: chosen.best_score, name: ""});
  const best = chosen.best_score === null ? "no detections"
    : `best ${fixed(chosen.best_f1)} from a score of ${fixed(chosen.best_score)}`;
  lineChart(byId("f1"), {title: `F1 over the score: ${chosen.name}`, xLabel: "score of at least", yLabel: "F1", marks, ...square,
    series: [{name: best, x: scores, y: chosen.f1, colour: "var(--correct)"}]});
}

function sum(categories, count) {
  return categories.reduce((total, category) => total + count(category), 0);
}

function showErrors() {
  const categories = gallery.filter.category < 0 ? allClasses : [gallery.filter.category];
  const detections = detector.kinds.map((kind, k) => [kind, sum(categories, (category) => detector.detectionsOf(category, k))])
    .filter(([kind]) => kind !== "ignored");
  const outcomes = truth.outcomes.map((kind, k) => [kind, sum(categories, (category) => detector.truthOf(category, k))]);
  const total = (rows) => rows.reduce((all, [, count]) => all + count, 0);
  byId("detections-title").textContent = counted(total(detections), "detection");
  byId("truth-title").textContent = counted(total(outcomes), "annotated box", "annotated boxes");
  for (const [target, rows] of [["detection-kinds", detections], ["truth-outcomes", outcomes]]) {
    const all = Math.max(total(rows), 1);
    barChart(byId(target), rows.map(([kind, count]) => ({name: kind, key: kind, share: count / all,
      colour: `var(--${kind === "found" ? "correct" : kind})`,
      text: `${count.toLocaleString("en")} (${(100 * count / all).toFixed(1)}%)`, pressed: gallery.filter.kind === kind,
      click: target === "detection-kinds" || kind === "missed" ? () => showKind(kind) : null})));
  }
}

function showKind(kind) {
  gallery.choose({kind: gallery.filter.kind === kind ? "" : kind});
  if (gallery.filter.kind) byId("gallery").scrollIntoView();
}

// Return the classes of the matrix: all, or the classes with the highest off-diagonal counts at the best score.
function matrixClasses() {
  const size = data.names.length + 1;
  if (data.names.length <= MATRIX_CLASSES) return allClasses;
  const errors = allClasses.map((k) => {
    let total = 0;
    for (let other = 0; other < size; other++) {
      if (other !== k) total += detector.matrix[k * size + other] + detector.matrix[other * size + k];
    }
    return total;
  });
  return [...allClasses].sort((a, b) => errors[b] - errors[a]).slice(0, MATRIX_CLASSES).sort((a, b) => a - b);
}

const worstClasses = matrixClasses();

function showMatrix() {
  const size = data.names.length + 1, own = gallery.filter.category;
  const shown = worstClasses.includes(own) || own < 0 ? worstClasses : [...worstClasses.slice(1), own].sort((a, b) => a - b);
  const places = [...shown, data.names.length], names = [...data.names, "background"];
  const heading = (scope, k) => element("th", {scope, title: names[k]}, names[k]);
  const head = element("tr", {}, element("th", {}, "annotated \\ detected"), ...places.map((k) => heading("col", k)));
  const rows = places.map((row) =>
    element("tr", {}, heading("row", row), ...places.map((column) => matrixCell(row, column, size, names))));
  replace(byId("matrix"), element("thead", {}, head), element("tbody", {}, ...rows));
  byId("matrix-note").textContent = shown.length < data.names.length
    ? `${shown.length} of ${data.names.length} classes, those with the most errors; choose a class above to see its row.` : "";
}

function matrixCell(row, column, size, names) {
  const count = detector.matrix[row * size + column];
  if (row === size - 1 && column === size - 1) return element("td");
  if (!count) return element("td", {}, "");
  let all = 0;
  for (let k = 0; k < size; k++) all += detector.matrix[row * size + k];
  const {cell} = gallery.filter, pressed = Boolean(cell) && cell[0] === row && cell[1] === column;
  return element("td", {}, element("button", {type: "button", "data-key": `${row},${column}`, "aria-pressed": String(pressed),
    "aria-label": `annotated ${names[row]}, detected ${names[column]}: ${count}`,
    style: `--share: ${(count / all).toFixed(3)}; --shade: var(--${row === column ? "correct" : "missed"})`,
    click: () => showCell(row, column)}, count.toLocaleString("en")));
}

function showCell(row, column) {
  const {cell} = gallery.filter;
  gallery.choose({cell: cell && cell[0] === row && cell[1] === column ? null : [row, column]});
  if (gallery.filter.cell) byId("gallery").scrollIntoView();
}

function shareOf(part, whole) {
  return `${(part / whole).toFixed(3)} (${part.toLocaleString("en")} of ${whole.toLocaleString("en")})`;
}

function showSizes() {
  for (const [target, bins, borders] of [["sides", truth.side, truth.sides], ["ratios", truth.ratio, truth.ratios]]) {
    const {all, found} = detector.recallBy(bins, borders.length + 1, gallery.filter.category);
    const names = [`below ${borders[0]}`, ...borders.map((border, k) => (k + 1 < borders.length ? `${border} to ${borders[k + 1]}`
      : `${border} and more`))];
    barChart(byId(target), [...all].map((count, k) => ({key: k, name: names[k], share: count ? found[k] / count : 0,
      colour: "var(--accent)", text: count ? shareOf(found[k], count) : "no boxes"})));
  }
}

function showNumbers() {
  showClasses();
  showCurves();
  showErrors();
  showMatrix();
  showSizes();
}

function showAll() {
  showNumbers();
  gallery.update();
}

gallery.onChoose = (filter, before) => {
  if (filter.category !== before.category) showNumbers();
  else {
    showErrors(); // highlights the chosen kind
    showMatrix();
  }
};
byId("score").addEventListener("input", () => setThreshold(Number(byId("score").value)));
byId("best").addEventListener("click", () =>
  setThreshold(detector.classes.at(gallery.filter.category).best_score ?? detector.best));
showAbout();
setThreshold(detector.best);
