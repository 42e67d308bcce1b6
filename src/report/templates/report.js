"use strict";
// What the pages of one evaluation and of two evaluations, A and B, have in common: thresholds, classes and numbers of errors.
// Each page has a gallery, and a function showNumbers that is called when the numbers have changed.

const data = readData();
const detectors = data.detectors.map((one) => new Detector(one, data.truth, data.names.length));
const allClasses = data.names.map((_, k) => k);
const LETTERS = detectors.length > 1 ? ["A", "B"] : [""];

// Return the chosen class, or all classes.
function chosenClasses() {
  return gallery.filter.category < 0 ? allClasses : [gallery.filter.category];
}

// Return the numbers of class k in each evaluation. -1 means all classes together.
function classRow(k) {
  const each = detectors.map((detector) => ({...detector.classes.at(k), ...detector.scores(k < 0 ? allClasses : [k])}));
  return {k, each, name: each[0].name};
}

// Show the classes, and the scores with the best F1. --conf_threshold is exclusive, so that a score is rounded down.
function showClasses(table) {
  detectors.forEach(({classes}, k) => {
    const score = classes.at(gallery.filter.category).best_score ?? 0;
    byId(`conf-${k}`).textContent = `--conf_threshold ${Math.max(0, (Math.ceil(score * 1000) - 1) / 1000)}`;
  });
  table.show(allClasses.map(classRow), classRow(-1), (row) => row.k === gallery.filter.category);
}

// Return the columns of the class and its number of boxes. A click chooses the class, or all classes if it is already chosen.
function classColumns() {
  const boxes = (row) => row.each[0].boxes;
  const choose = ({k}) => gallery.choose({category: k === gallery.filter.category ? -1 : k});
  return [{title: "class", value: (row) => row.name, click: choose},
    {title: "boxes", value: boxes, text: (row) => boxes(row).toLocaleString("en")}];
}

function setThreshold(k, value) {
  byId(`score-${k}`).value = value;
  byId(`score-value-${k}`).textContent = Math.fround(value).toFixed(3);
  detectors[k].count(value);
}

function showAll() {
  showNumbers();
  gallery.update();
}

// Use each detector's best threshold, because the scores of two detectors are on different scales.
function setBest() {
  detectors.forEach((detector, k) => setThreshold(k, detector.classes.at(gallery.filter.category).best_score ?? detector.best));
  showAll();
}

function start() {
  byId("scores").append(...detectors.map((_, k) => {
    const slider = element("input", {type: "range", id: `score-${k}`, min: 0, max: 1, step: 0.01, input: () => {
      setThreshold(k, Number(slider.value));
      showAll();
    }});
    return element("label", {}, `Score ${LETTERS[k]} of at least `, slider, " ",
      element("output", {id: `score-value-${k}`, for: `score-${k}`}), "; best F1: ", element("code", {id: `conf-${k}`}));
  }));
  options(byId("iou"), data.ious.map((iou) => [iou, iou.toFixed(2)]));
  byId("iou").addEventListener("change", () => {
    detectors.forEach((detector) => detector.useIou(byId("iou").selectedIndex));
    showAll();
  });
  detectors.forEach((detector) => detector.useIou(0));
  byId("best").addEventListener("click", setBest);
  setBest();
}
