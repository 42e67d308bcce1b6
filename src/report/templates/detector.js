"use strict";
// The boxes of an evaluation as typed arrays, and their counts above a score threshold. Kinds and matches of detections do not
// depend on the threshold, because detections are matched in descending order of score.

class Truth {
  constructor(data) {
    this.starts = unpack(data.starts, Uint32Array);
    this.category = unpack(data.category, Uint16Array);
    this.crowd = unpack(data.crowd, Uint8Array);
    this.side = unpack(data.side, Uint8Array);
    this.ratio = unpack(data.ratio, Uint8Array);
    this.sides = data.sides;
    this.ratios = data.ratios;
    this.outcomes = data.outcomes;
    this.length = this.category.length;
  }
}

class Detector {
  constructor(data, truth, numClasses) {
    Object.assign(this, {label: data.label, metrics: data.metrics, classes: data.classes, best: Math.fround(data.threshold)});
    Object.assign(this, {kinds: data.kinds, truth, numClasses, length: 0});
    this.starts = unpack(data.starts, Uint32Array);
    this.score = unpack(data.score, Float32Array);
    this.category = unpack(data.category, Uint16Array);
    this.kind = unpack(data.kind, Uint8Array);
    this.partner = unpack(data.partner, Int16Array);
    this.place = unpack(data.place, Int16Array);
    this.length = this.score.length;
    this.images = this.starts.length - 1;
    this.found = truth.outcomes.indexOf("found");
    this.missed = truth.outcomes.indexOf("missed");
    this.ignored = data.kinds.indexOf("ignored");
    this.correct = data.kinds.indexOf("correct");
    // The outcome that each kind explains. "found" has priority over "localisation", and that over "class".
    this.explains = data.kinds.map((kind) => truth.outcomes.indexOf(kind === "correct" ? "found" : kind));
    this.outcome = new Uint8Array(truth.length);
    this.unmatched = new Uint8Array(truth.length);
    this.count(this.best);
  }

  // Count all values for a threshold: outcome and unmatched for each box, kinds by class, the confusion matrix, and costs.
  count(threshold) {
    const {truth, numClasses} = this, size = numClasses + 1;
    this.threshold = Math.fround(threshold);
    this.byKind = new Uint32Array(numClasses * this.kinds.length);
    this.byOutcome = new Uint32Array(numClasses * truth.outcomes.length);
    this.matrix = new Uint32Array(size * size);
    this.costs = new Float64Array(this.images);
    this.outcome.fill(this.missed);
    this.unmatched.fill(1);
    for (let image = 0; image < this.images; image++) this.countImage(image, truth.starts[image], size);
  }

  countImage(image, first, size) {
    const {truth, numClasses} = this;
    for (let i = this.starts[image]; i < this.starts[image + 1] && this.score[i] >= this.threshold; i++) {
      const kind = this.kind[i];
      this.byKind[this.category[i] * this.kinds.length + kind] += 1;
      if (kind === this.ignored) continue;
      if (kind !== this.correct) this.costs[image] += this.score[i];
      if (this.partner[i] >= 0) {
        const box = first + this.partner[i];
        this.outcome[box] = Math.min(this.outcome[box], this.explains[kind]);
      }
      if (this.place[i] >= 0) this.unmatched[first + this.place[i]] = 0;
      this.matrix[this.row(i, first) * size + this.category[i]] += 1;
    }
    for (let box = first; box < truth.starts[image + 1]; box++) {
      if (truth.crowd[box]) continue;
      this.byOutcome[truth.category[box] * truth.outcomes.length + this.outcome[box]] += 1;
      if (this.outcome[box] !== this.found) this.costs[image] += 1;
      if (this.unmatched[box]) this.matrix[truth.category[box] * size + numClasses] += 1;
    }
  }

  // Return the row of the confusion matrix for detection i. `first` is the first box of its image.
  row(i, first) {
    return this.place[i] >= 0 ? this.truth.category[first + this.place[i]] : this.numClasses;
  }

  detectionsOf(category, kind) {
    return this.byKind[category * this.kinds.length + kind];
  }

  truthOf(category, outcome) {
    return this.byOutcome[category * this.truth.outcomes.length + outcome];
  }

  // Return boxes, detections, precision, recall and F1 of some classes. A ratio with a denominator of 0 is null.
  scores(categories) {
    let boxes = 0, detections = 0, correct = 0, found = 0;
    for (const category of categories) {
      this.truth.outcomes.forEach((_, outcome) => (boxes += this.truthOf(category, outcome)));
      this.kinds.forEach((_, kind) => (detections += kind === this.ignored ? 0 : this.detectionsOf(category, kind)));
      correct += this.detectionsOf(category, this.correct);
      found += this.truthOf(category, this.found);
    }
    return {boxes, detections, precision: detections ? correct / detections : null, recall: boxes ? found / boxes : null,
      f1: boxes + detections ? 2 * correct / (boxes + detections) : null};
  }

  // Return the number of boxes and of found boxes for each bin of side or ratio.
  recallBy(bins, count, category) {
    const all = new Uint32Array(count), found = new Uint32Array(count);
    for (let box = 0; box < this.truth.length; box++) {
      if (this.truth.crowd[box] || (category >= 0 && this.truth.category[box] !== category)) continue;
      all[bins[box]] += 1;
      if (this.outcome[box] === this.found) found[bins[box]] += 1;
    }
    return {all, found};
  }

  // Call detection(i, passes) and box(number, passes) of an image; passes: result of the filter {category, kind, cell}.
  visit(image, filter, detection, box) {
    const {truth, numClasses} = this, first = truth.starts[image];
    for (let i = this.starts[image]; i < this.starts[image + 1] && this.score[i] >= this.threshold; i++) {
      detection(i, passes(filter, this.category[i], this.kinds[this.kind[i]], this.row(i, first), this.category[i],
        this.kind[i] === this.ignored));
    }
    for (let number = first; number < truth.starts[image + 1]; number++) {
      const category = truth.category[number], crowd = truth.crowd[number];
      const kind = !crowd && this.outcome[number] === this.missed ? "missed" : "";
      box(number, passes(filter, category, kind, category, this.unmatched[number] ? numClasses : -1, crowd));
    }
  }

  // Return whether an image has a detection or box that passes the filter.
  matches(image, filter) {
    if (filter.category < 0 && !filter.kind && !filter.cell) return true;
    let found = false;
    const note = (_, passed) => (found ||= passed);
    this.visit(image, filter, note, note);
    return found;
  }
}

// filter: category (-1: any), kind ("": any, "error": any but correct), cell (null: any, or [row, column] of the matrix).
function passes(filter, category, kind, row, column, ignored) {
  if (filter.cell) return !ignored && row === filter.cell[0] && column === filter.cell[1];
  if (filter.category >= 0 && category !== filter.category) return false;
  if (filter.kind === "error") return !["", "correct", "ignored"].includes(kind);
  return filter.kind === "" || kind === filter.kind;
}
