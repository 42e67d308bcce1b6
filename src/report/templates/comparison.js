"use strict";
// The report of two evaluations, A and B.

const data = readData();
const truth = new Truth(data.truth);
const detectors = data.detectors.map((one) => new Detector(one, truth, data.names.length));
const allClasses = data.names.map((_, k) => k);
const LETTERS = ["A", "B"];
let change = ""; // filter of the images: "better", "worse", or empty for all

// Return how much lower the cost of an image is in B than in A.
function gain(image) {
  return detectors[0].costs[image] - detectors[1].costs[image];
}

const gallery = new Gallery(data, detectors, data.names, {
  order: (image) => Math.abs(gain(image)),
  caption: (image) => `${judgement(gain(image))}: cost ${detectors.map(({costs}) => costs[image].toFixed(2)).join(" → ")}`,
  keep: (image) => !change || (change === "better" ? gain(image) > 0 : gain(image) < 0),
});

function judgement(difference) {
  if (difference === 0) return "as good";
  return difference > 0 ? "better" : "worse";
}

function signed(value) {
  return value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
}

// Return the difference of two numbers, or null if one is missing.
function difference(a, b) {
  return [a, b].every((value) => value !== null && value >= 0) ? b - a : null;
}

// Return the columns of a number in A, in B, and their difference. `pair` is a function of a row.
function columnsOf(title, pair) {
  const change = (row) => difference(...pair(row));
  const ofOne = (letter, k) => ({title: `${title} ${letter}`, value: (row) => pair(row)[k], text: (row) => fixed(pair(row)[k])});
  return [...LETTERS.map(ofOne), {title: "B − A", value: (row) => change(row) ?? 0, text: (row) => signed(change(row)),
    style: (row) => (Math.abs(change(row)) < 0.0005 ? null : judgement(change(row)))}];
}

const numberTable = new SortedTable(byId("number-table"), [{title: "number", value: (row) => row.key},
  ...columnsOf("", (row) => detectors.map(({metrics}) => metrics[row.key]))]);
const classTable = new SortedTable(byId("class-table"), [
  {title: "class", value: (row) => row.name, click: (row) => gallery.toggleClass(row.k)},
  {title: "boxes", value: (row) => row.boxes, text: (row) => row.boxes.toLocaleString("en")},
  ...columnsOf("AP", (row) => row.classes.map(({ap}) => ap)), ...columnsOf("AP50", (row) => row.classes.map(({ap50}) => ap50)),
  ...columnsOf("F1", (row) => row.f1)]);

function classRow(k) {
  const scores = detectors.map((detector) => detector.scores(k < 0 ? allClasses : [k]));
  const classes = detectors.map((detector) => detector.classes.at(k)); // at(-1): all classes
  return {k, name: classes[0].name, classes, boxes: scores[0].boxes, f1: scores.map(({f1}) => f1)};
}

function showNumbers() {
  numberTable.show(Object.keys(detectors[0].metrics).map((key) => ({key})));
  classTable.show(allClasses.map(classRow), classRow(-1), (row) => row.k === gallery.filter.category);
  showErrors();
}

function showErrors() {
  const categories = gallery.filter.category < 0 ? allClasses : [gallery.filter.category];
  const targets = detectors.map(() => element("div"));
  byId("error-bars").replaceChildren(...detectors.map((_, k) => element("div", {}, element("h3", {}, LETTERS[k]), targets[k])));
  const total = (count) => categories.reduce((all, category) => all + count(category), 0);
  const counts = detectors.map((detector) => [
    ...detector.kinds.map((kind, k) => [kind, total((category) => detector.detectionsOf(category, k))])
      .filter(([kind]) => kind !== "ignored"),
    ["missed", total((category) => detector.truthOf(category, detector.missed))]]);
  const most = Math.max(1, ...counts.flat().map(([, count]) => count));
  counts.forEach((rows, k) => barChart(targets[k], rows.map(([name, count]) =>
    ({name, key: name, share: count / most, text: count.toLocaleString("en"), colour: `var(--${name})`}))));
}

function scoreControl(k) {
  const slider = element("input", {type: "range", id: `score-${k}`, min: 0, max: 1, step: 0.01,
    input: () => setThreshold(k, Number(slider.value))});
  return element("label", {}, `${LETTERS[k]}: score of at least `, slider, " ",
    element("output", {id: `score-value-${k}`, for: `score-${k}`}));
}

function setThreshold(k, value, show = true) {
  byId(`score-${k}`).value = value;
  byId(`score-value-${k}`).textContent = Math.fround(value).toFixed(3);
  detectors[k].count(value);
  if (show) showAll();
}

// Use each detector's best threshold, because the scores of two detectors are on different scales.
function setBest() {
  const {category} = gallery.filter;
  detectors.forEach((detector, k) => setThreshold(k, detector.classes.at(category).best_score ?? detector.best, false));
  showAll();
}

function showAll() {
  showNumbers();
  gallery.update();
}

function addControls() {
  byId("scores").append(...detectors.map((_, k) => scoreControl(k)));
  const changes = element("select", {id: "change", change: () => {
    change = changes.value;
    gallery.choose({});
  }});
  options(changes, [["", "better and worse"], ["better", "better in B"], ["worse", "worse in B"]]);
  byId("kind").parentElement.before(element("label", {}, "Images ", changes));
  byId("best").addEventListener("click", setBest);
}

gallery.onChoose = (filter) => {
  showNumbers();
};
addControls();
byId("about").textContent = `A: ${detectors[0].label}, B: ${detectors[1].label}, on ${counted(data.images, "image")} of `
  + `${data.annotations}.`;
byId("gallery-note").textContent = "The images that changed most come first, A on the left and B on the right: the cost of an "
  + "image is the sum of the scores of its false detections, and 1 for each annotated box that was not found. Click an image to "
  + "enlarge it.";
setBest();
