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

// Return the columns of a number in A, in B, and their difference. `pair` is a function of a row.
function columnsOf(title, pair) {
  const difference = ([a, b]) => ([a, b].every((value) => value !== null && value >= 0) ? b - a : null);
  const signed = (value) => (value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`);
  return [...LETTERS.map((letter, k) => ({title: `${title} ${letter}`, value: (row) => pair(row)[k],
    text: (row) => fixed(pair(row)[k])})),
  {title: "B − A", value: (row) => difference(pair(row)) ?? 0, text: (row) => signed(difference(pair(row))),
    style: (row) => (Math.abs(difference(pair(row))) < 0.0005 ? null : judgement(difference(pair(row))))}];
}

const numberTable = new SortedTable(byId("number-table"), [{title: "number", value: (row) => row.key},
  ...columnsOf("", (row) => detectors.map(({metrics}) => metrics[row.key]))]);
const classTable = new SortedTable(byId("class-table"), [...classColumns(), ...[["AP", "ap"], ["AP50", "ap50"], ["F1", "f1"]]
  .flatMap(([title, key]) => columnsOf(title, ({each}) => each.map((one) => one[key])))]);

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
byId("about").textContent = `A: ${detectors[0].label}, B: ${detectors[1].label}, on ${counted(data.images, "image")} of `
  + `${data.annotations}.`;
byId("gallery-note").textContent = "The images that changed most come first, A on the left and B on the right: the cost of an "
  + "image is the sum of the scores of its false detections, and 1 for each annotated box that was not found. Click an image to "
  + "enlarge it.";
start();
