"use strict";
// The boxes of an evaluation, and their counts above a score threshold. Kinds and matches of detections depend on the IoU, but
// not on the score threshold, because detections are matched in descending order of score.

class Detector {
  constructor(data, truth, numClasses) {
    Object.assign(this, data, {truth, numClasses, best: Math.fround(data.threshold), images: data.starts.length - 1});
    this.found = truth.outcomes.indexOf("found");
    this.missed = truth.outcomes.indexOf("missed");
    this.ignored = data.kinds.indexOf("ignored");
    this.correct = data.kinds.indexOf("correct");
    const order = Uint32Array.from(this.score.keys()).sort((a, b) => this.score[b] - this.score[a]);
    this.ranked = [...data.classes.slice(0, -1).map(() => []), order]; // rows of each class, and last of all classes
    for (const row of order) this.ranked[this.category[row]].push(row);
    // The outcome that each kind explains. "found" has priority over "localisation", and that over "class".
    this.explains = data.kinds.map((kind) => truth.outcomes.indexOf(kind === "correct" ? "found" : kind));
    this.outcome = new Uint8Array(truth.category.length);
    this.unmatched = new Uint8Array(truth.category.length);
    for (const key of ["kind", "tide_match", "confusion_match"]) this[key] = this.levels[0][key].slice();
  }

  // Use the matches at the IoU number k, and update the F1 of each class.
  useIou(k) {
    for (const {rows, ...changed} of this.levels.slice(0, k + 1)) {
      for (const [key, values] of Object.entries(changed)) rows.forEach((row, i) => { this[key][row] = values[i]; });
    }
    this.classes.forEach((one, category) => Object.assign(one, this.f1(category)));
    this.count(this.threshold);
  }

  // Return the F1 of a class at the thresholds 0, 0.01, ..., 1, the best F1 and its score; ties take the lowest score.
  f1(category) {
    const rows = this.ranked[category], {truth, numClasses} = this;
    const boxes = truth.category.filter((own, box) => !truth.crowd[box] && (category === numClasses || own === category)).length;
    const best = {f1: Array(101).fill(0), best_f1: 0, best_score: null};
    let correct = 0, counted = 0;
    rows.forEach((row, k) => {
      const score = this.score[row];
      correct += this.kind[row] === this.correct;
      counted += this.kind[row] !== this.ignored;
      if (k + 1 < rows.length && this.score[rows[k + 1]] === score) return;
      const value = 2 * correct / Math.max(counted + boxes, 1);
      best.f1.fill(value, 0, Math.floor(score * 100) + 1);
      if (value >= best.best_f1) Object.assign(best, {best_f1: value, best_score: score});
    });
    return best;
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
      if (this.tide_match[i] >= 0) {
        const box = first + this.tide_match[i];
        this.outcome[box] = Math.min(this.outcome[box], this.explains[kind]);
      }
      if (this.confusion_match[i] >= 0) this.unmatched[first + this.confusion_match[i]] = 0;
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
    return this.confusion_match[i] >= 0 ? this.truth.category[first + this.confusion_match[i]] : this.numClasses;
  }

  // Return [kind, number] of the detections of some classes, without ignored ones.
  detections(categories) {
    return this.kinds.map((kind, k) => [kind, sum(categories, (category) => this.byKind[category * this.kinds.length + k])])
      .filter(([kind]) => kind !== "ignored");
  }

  // Return [outcome, number] of the annotated boxes of some classes.
  boxes(categories) {
    const {outcomes} = this.truth;
    return outcomes.map((name, k) => [name, sum(categories, (category) => this.byOutcome[category * outcomes.length + k])]);
  }

  // Return boxes, detections, precision, recall and F1 of some classes. A ratio with a denominator of 0 is null.
  scores(categories) {
    const kinds = this.detections(categories), outcomes = this.boxes(categories);
    const [detections, boxes] = [kinds, outcomes].map((counts) => sum(counts, ([, count]) => count));
    const [[, correct], [, found]] = [kinds[this.correct], outcomes[this.found]];
    return {boxes, detections, precision: detections ? correct / detections : null, recall: boxes ? found / boxes : null,
      f1: boxes + detections ? 2 * correct / (boxes + detections) : null};
  }

  // Return the number of boxes and of found boxes for each bin of side or ratio.
  recallBy(bins, count, category) {
    const all = new Uint32Array(count), found = new Uint32Array(count);
    for (let box = 0; box < bins.length; box++) {
      if (this.truth.crowd[box] || (category >= 0 && this.truth.category[box] !== category)) continue;
      all[bins[box]] += 1;
      if (this.outcome[box] === this.found) found[bins[box]] += 1;
    }
    return {all, found};
  }

  // Yield the detections above the threshold and the annotated boxes of an image; passed: whether the filter includes the box.
  * visible(image, filter) {
    const {truth, numClasses} = this, first = truth.starts[image];
    for (let i = this.starts[image]; i < this.starts[image + 1] && this.score[i] >= this.threshold; i++) {
      const category = this.category[i], kind = this.kinds[this.kind[i]];
      yield {shape: "found", number: i - this.starts[image], category, kind, score: this.score[i],
        passed: passes(filter, category, kind, this.row(i, first), category, kind === "ignored")};
    }
    for (let box = first; box < truth.starts[image + 1]; box++) {
      const category = truth.category[box], crowd = truth.crowd[box];
      const outcome = crowd ? "ignored" : truth.outcomes[this.outcome[box]];
      yield {shape: "truth", number: box - first, category, kind: outcome === "found" ? "correct" : outcome, crowd,
        passed: passes(filter, category, outcome === "missed" ? outcome : "", category, this.unmatched[box] ? numClasses : -1, crowd)};
    }
  }

  // Return whether an image has a detection or box that passes the filter.
  matches(image, filter) {
    return (filter.category < 0 && !filter.kind && !filter.cell) || [...this.visible(image, filter)].some(({passed}) => passed);
  }
}

// filter: category (-1: any), kind ("": any, "error": any but correct), cell (null: any, or [row, column] of the matrix).
function passes(filter, category, kind, row, column, ignored) {
  if (filter.cell) return !ignored && row === filter.cell[0] && column === filter.cell[1];
  if (filter.category >= 0 && category !== filter.category) return false;
  if (filter.kind === "error") return !["", "correct", "ignored"].includes(kind);
  return filter.kind === "" || kind === filter.kind;
}
