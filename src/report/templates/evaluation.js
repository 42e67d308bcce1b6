"use strict";
// The report of one evaluation.

const MATRIX_CLASSES = 24; // with more classes, only classes with the most errors are shown
const {truth} = data;
const [detector] = detectors;
const size = data.names.length + 1; // of the confusion matrix
const matrixNames = [...data.names, "background"];

const gallery = new Gallery(data.gallery, detectors, data.names, {
  order: (image) => detector.costs[image],
  caption: (image) => `cost ${detector.costs[image].toFixed(2)}`,
  changed: (filter, before) => {
    if (filter.category !== before.category) showNumbers();
    else {
      showErrors(); // highlights the chosen kind
      showMatrix();
    }
  },
});

const classTable = new SortedTable(byId("class-table"), [...classColumns(), ...[["AP", "ap"], ["AP50", "ap50"], ["AP75", "ap75"],
  ["detections", "detections"], ["precision", "precision"], ["recall", "recall"], ["F1", "f1"], ["best F1", "best_f1"],
  ["at score", "best_score"]].map(([title, key]) => ({title, value: ({each: [one]}) => one[key],
  text: ({each: [one]}) => (key === "detections" ? one[key].toLocaleString("en") : fixed(one[key]))}))]);

function showAbout() {
  const skipped = data.skipped ? `; ${counted(data.skipped, "image")} could not be read and are not scored` : "";
  byId("about").textContent = `${detector.label ? `${detector.label}, on ` : ""}${counted(data.images, "image")} of `
    + `${data.annotations}, with ${counted(truth.category.length, "annotated box", "annotated boxes")}; `
    + `${counted(detector.score.length, "detection")}${skipped}.`;
  byId("numbers").replaceChildren(...Object.entries(detector.metrics).map(([key, value]) =>
    element("div", {}, element("dt", {}, key), element("dd", {"data-key": key, "data-value": value}, fixed(value)))));
  byId("gallery-note").textContent = gallery.images.length < data.images ? `This file contains ${gallery.images.length} of `
    + `${data.images.toLocaleString("en")} images, which have the highest costs at the threshold with the best F1.` : "";
}

function showCurves() {
  const chosen = detector.classes.at(gallery.filter.category), x = chosen.f1.map((_, k) => k / 100); // at(-1): all classes
  const square = {xRange: [0, 1], yRange: [0, 1]};
  const own = byId("iou").selectedIndex; // for comparison, the dashed curve is at an IoU of 0.5 or 0.75
  const series = [own, own ? 0 : 5].map((k) => {
    const y = chosen.precision?.[k], ap = y ? sum(y) / y.length : null;
    return {name: `IoU ${data.ious[k].toFixed(2)}: AP ${fixed(ap)}`, x, y: y ?? [], colour: "var(--accent)", dashed: k !== own};
  });
  lineChart(byId("precision-recall"), {title: `Precision and recall: ${chosen.name}`, xLabel: "recall", yLabel: "precision",
    series, ...square});
  const known = chosen.best_score !== null;
  const name = known ? `best ${fixed(chosen.best_f1)} from a score of ${fixed(chosen.best_score)}` : "no detections";
  lineChart(byId("f1"), {title: `F1 over the score: ${chosen.name}`, xLabel: "confidence threshold", yLabel: "F1", ...square,
    marks: [...known ? [{x: chosen.best_score, name: ""}] : [],
      {x: detector.threshold, name: `chosen ${detector.threshold.toFixed(2)}`}],
    series: [{name, x, y: chosen.f1, colour: "var(--correct)"}]});
}

function showErrors() {
  for (const [id, title, rows, nouns] of [
    ["detection-kinds", "detections-title", detector.detections(chosenClasses()), ["detection"]],
    ["truth-outcomes", "truth-title", detector.boxes(chosenClasses()), ["annotated box", "annotated boxes"]]]) {
    const total = sum(rows, ([, count]) => count), all = Math.max(total, 1);
    byId(title).textContent = counted(total, ...nouns);
    barChart(byId(id), rows.map(([kind, count]) => ({name: kind, share: count / all,
      colour: `var(--${kind === "found" ? "correct" : kind})`,
      text: `${count.toLocaleString("en")} (${(100 * count / all).toFixed(1)}%)`, pressed: gallery.filter.kind === kind,
      click: id === "detection-kinds" || kind === "missed" ? () => toggle({kind}, gallery.filter.kind === kind) : null})));
  }
}

// Add a kind or a cell to the filter and show its images, or remove it.
function toggle(change, isChosen) {
  gallery.choose(isChosen ? {kind: "", cell: null} : change);
  if (!isChosen) byId("gallery").scrollIntoView();
}

// Return the classes with the highest off-diagonal counts.
function mostConfused() {
  const errors = allClasses.map((k) => sum([...allClasses, size - 1].filter((other) => other !== k),
    (other) => detector.matrix[k * size + other] + detector.matrix[other * size + k]));
  return [...allClasses].sort((a, b) => errors[b] - errors[a]).slice(0, MATRIX_CLASSES).sort((a, b) => a - b);
}

function showMatrix() {
  const own = gallery.filter.category;
  const shown = worstClasses.includes(own) || own < 0 ? worstClasses : [...worstClasses.slice(1), own].sort((a, b) => a - b);
  const places = [...shown, size - 1];
  const heading = (scope, k) => element("th", {scope, title: matrixNames[k]}, matrixNames[k]);
  replace(byId("matrix"),
    element("thead", {}, element("tr", {}, element("th", {}, "annotated \\ detected"), ...places.map((k) => heading("col", k)))),
    element("tbody", {}, ...places.map((row) => element("tr", {}, heading("row", row), ...places.map((k) => matrixCell(row, k))))));
  byId("matrix-note").textContent = shown.length < data.names.length
    ? `${shown.length} of ${data.names.length} classes, those with the most errors; choose a class above to see its row.` : "";
}

function matrixCell(row, column) {
  const counts = detector.matrix.subarray(row * size, (row + 1) * size), count = counts[column];
  if (!count) return element("td");
  const {cell} = gallery.filter, pressed = Boolean(cell) && cell[0] === row && cell[1] === column;
  return element("td", {}, element("button", {type: "button", "data-key": `${row},${column}`, "aria-pressed": String(pressed),
    "aria-label": `annotated ${matrixNames[row]}, detected ${matrixNames[column]}: ${count}`,
    style: `--share: ${(count / sum(counts)).toFixed(3)}; --shade: var(--${row === column ? "correct" : "missed"})`,
    click: () => toggle({cell: [row, column]}, pressed)}, count.toLocaleString("en")));
}

function showSizes() {
  for (const [target, bins, edges, anchors = []] of [["sides", truth.side, truth.sides], ["ratios", truth.ratio, truth.ratios],
    ["anchors", truth.anchor, truth.anchors, truth.anchor_names]]) {
    const {all, found} = detector.recallBy(bins, edges.length + 1, gallery.filter.category);
    const names = [`below ${edges[0]}`, ...edges.map((edge, k) => (k + 1 < edges.length ? `${edge} to ${edges[k + 1]}`
      : `${edge} and more`))].map((name, k) => name + (anchors[k] ?? ""));
    barChart(byId(target), [...all].map((count, k) => ({name: names[k], share: count ? found[k] / count : 0,
      colour: "var(--accent)", text: count ? `${(found[k] / count).toFixed(3)} (${found[k].toLocaleString("en")} of `
        + `${count.toLocaleString("en")})` : "no boxes"})));
  }
}

function showNumbers() {
  showClasses(classTable);
  showCurves();
  showErrors();
  showMatrix();
  showSizes();
}

showAbout();
detector.count(detector.best);
const worstClasses = mostConfused();
start();
