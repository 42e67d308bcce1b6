"use strict";
// A gallery of images with annotated boxes and the boxes of one or two detectors, which can be filtered and hidden.

const PAGE = 24; // number of figures at first, and added by each click
const MAX_LABELS = 12; // labels of the highest scores on a small image

class Gallery {
  // order: function of an image's index that returns its sort key, highest first; caption: function that returns its text.
  constructor(data, detectors, names, {order, caption, keep = () => true}) {
    Object.assign(this, {detectors, names, order, caption, keep, shown: PAGE, enlarged: -1});
    this.images = data.gallery.images;
    const [truth, ...found] = data.gallery.boxes.map((text) => unpack(text, Float32Array));
    this.places = {truth, found};
    this.locate();
    this.filter = {category: -1, kind: "", cell: null};
    this.switches = {annotations: true, detections: detectors.map(() => true)};
    byId("figures").classList.toggle("double", detectors.length > 1);
    this.addControls();
    // Draw boxes only in visible figures: drawing thousands of them would delay a slider.
    this.observer = new IntersectionObserver((entries) => {
      for (const {target} of entries.filter(({isIntersecting}) => isIntersecting)) {
        this.observer.unobserve(target);
        target.replaceChildren(this.panels(this.images[target.dataset.number], 26, MAX_LABELS));
      }
    }, {rootMargin: "100px"});
  }

  // Find the first box of each image in the lists of coordinates.
  locate() {
    let truth = 0;
    const found = this.detectors.map(() => 0), [{truth: all}] = this.detectors;
    for (const image of this.images) {
      Object.assign(image, {truthAt: truth, foundAt: [...found]});
      truth += all.starts[image.image + 1] - all.starts[image.image];
      this.detectors.forEach((detector, k) => (found[k] += detector.starts[image.image + 1] - detector.starts[image.image]));
    }
  }

  kinds() {
    return [...this.detectors[0].kinds.filter((kind) => kind !== "ignored"), "missed"];
  }

  addControls() {
    options(byId("kind"), [["", "all images"], ["error", "images with errors"], ...this.kinds().map((kind) => [kind, kind])]);
    byId("kind").addEventListener("change", () => this.choose({kind: byId("kind").value}));
    options(byId("class"), [[-1, "all classes"], ...this.names.map((name, k) => [k, name])]);
    byId("class").addEventListener("change", () => this.choose({category: Number(byId("class").value)}));
    byId("annotations").addEventListener("change", (event) => {
      this.switches.annotations = event.target.checked;
      this.draw();
    });
    byId("detection-switches").append(...this.detectors.map((_, k) => this.detectionSwitch(k)));
    byId("cell").addEventListener("click", () => this.choose({cell: null}));
    byId("more").addEventListener("click", () => {
      this.shown += PAGE;
      this.draw();
    });
    byId("previous").addEventListener("click", () => this.enlarge(this.enlarged - 1));
    byId("next").addEventListener("click", () => this.enlarge(this.enlarged + 1));
    byId("close").addEventListener("click", () => byId("enlarged").close());
    const entry = (kind) => element("li", {},
      element("i", {style: `border-color: var(--${kind})`, class: kind === "missed" ? "dashed" : null}), kind);
    byId("legend").replaceChildren(...this.kinds().map(entry), element("li", {}, "solid: detection, dashed: annotation"));
  }

  detectionSwitch(k) {
    const name = this.detectors.length > 1 ? `detections of ${"AB"[k]}` : "detections";
    return element("label", {}, element("input", {type: "checkbox", id: `detections-${k}`, checked: true, change: (event) => {
      this.switches.detections[k] = event.target.checked;
      this.draw();
    }}), ` ${name} `);
  }

  // Change the filter, and call onChoose.
  choose(change) {
    const before = this.filter;
    // A cell implies its classes and kinds.
    this.filter = {...this.filter, ...change.cell ? {category: -1, kind: ""} : {cell: null}, ...change};
    byId("kind").value = this.filter.kind;
    byId("class").value = this.filter.category;
    this.shown = PAGE;
    this.onChoose?.(this.filter, before);
    this.update();
  }

  // Choose a class, or all classes if it is already chosen.
  toggleClass(k) {
    this.choose({category: k === this.filter.category ? -1 : k});
  }

  // Sort and filter again, for example after a change of the threshold.
  update() {
    const chosen = this.images.filter(({image}) => this.keep(image)
      && this.detectors.some((detector) => detector.matches(image, this.filter)));
    this.chosen = chosen.map((image) => [this.order(image.image), image]).sort((a, b) => b[0] - a[0]).map(([, image]) => image);
    this.draw();
  }

  draw() {
    const {cell} = this.filter, names = [...this.names, "background"];
    byId("gallery-count").textContent = `${counted(this.chosen.length, "image")} of the ${this.images.length} in this file`;
    byId("cell").hidden = !cell;
    byId("cell").textContent = cell ? `✕ annotated ${names[cell[0]]}, detected ${names[cell[1]]}` : "";
    this.observer.disconnect();
    const figures = this.chosen.slice(0, this.shown).map((image, k) => this.figure(image, k));
    byId("figures").replaceChildren(...figures);
    figures.forEach((figure) => this.observer.observe(figure.firstChild));
    byId("more").hidden = this.chosen.length <= this.shown;
    if (byId("enlarged").open) this.enlarge(this.enlarged);
  }

  figure(image, k) {
    return element("figure", {"data-id": image.id},
      element("button", {type: "button", "data-number": this.images.indexOf(image), "aria-label": `Enlarge ${image.name}`,
        style: `aspect-ratio: ${image.width * this.detectors.length} / ${image.height}`, click: () => this.enlarge(k)}),
      element("figcaption", {}, `${image.name} · ${this.caption(image.image)}`));
  }

  enlarge(k) {
    if (k < 0 || k >= this.chosen.length) return;
    const image = this.chosen[k], {name, id, width, height} = image;
    this.enlarged = k;
    byId("enlarged-figure").replaceChildren(element("figure", {"data-id": id}, this.panels(image, 60, Infinity),
      element("figcaption", {}, `${name} (id ${id}, ${width}×${height}) · ${this.caption(image.image)}`)));
    byId("previous").disabled = k === 0;
    byId("next").disabled = k === this.chosen.length - 1;
    if (!byId("enlarged").open) byId("enlarged").showModal();
  }

  panels(image, letters, maxLabels) {
    return element("div", {class: "panels"}, ...this.detectors.map((_, k) => this.panel(image, k, letters, maxLabels)));
  }

  // Return an image with its boxes. letters: number of letter heights in the longer side; maxLabels: maximum number of labels;
  // if it is finite, only errors have labels.
  panel(image, k, letters, maxLabels) {
    const {width, height} = image, size = Math.max(width, height * 1.3) / letters;
    const picture = svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": image.name});
    const boxes = [], middle = {x: width / 2, y: height / 2, "text-anchor": "middle", "font-size": size, fill: "currentColor"};
    this.eachBox(image, k, (box) => boxes.push(box));
    const labelled = maxLabels === Infinity ? boxes : boxes.filter(({kind, passed}) => kind !== "correct" && passed);
    picture.append(image.jpeg
      ? svg("image", {href: `data:image/jpeg;base64,${image.jpeg}`, width, height, preserveAspectRatio: "none"})
      : svg("text", middle, "cannot be read"), ...boxPaths(boxes),
    ...labelled.slice(0, maxLabels).map((box) => boxLabel(box, width, height, size)));
    return picture;
  }

  // Call `add` for each visible box of an image.
  eachBox(image, k, add) {
    const detector = this.detectors[k], {truth} = detector;
    const place = (list, at) => ({x: list[at * 4], y: list[at * 4 + 1], w: list[at * 4 + 2], h: list[at * 4 + 3]});
    const one = (i, passed) => this.switches.detections[k] && add({
      ...place(this.places.found[k], image.foundAt[k] + i - detector.starts[image.image]), kind: detector.kinds[detector.kind[i]],
      shape: "found", text: `${this.names[detector.category[i]]} ${detector.score[i].toFixed(2)}`, passed});
    const other = (box, passed) => {
      const crowd = truth.crowd[box], outcome = crowd ? "ignored" : truth.outcomes[detector.outcome[box]];
      if (this.switches.annotations) {
        add({...place(this.places.truth, image.truthAt + box - truth.starts[image.image]), shape: "truth", passed,
          kind: outcome === "found" ? "correct" : outcome, text: this.names[truth.category[box]] + (crowd ? " (crowd)" : "")});
      }
    };
    detector.visit(image.image, this.filter, one, other);
  }
}

// Draw all boxes of the same shape, kind and brightness as one path.
function boxPaths(boxes) {
  const groups = new Map();
  for (const {x, y, w, h, kind, shape, passed} of boxes) {
    const name = `${shape} ${kind}${passed ? "" : " dim"}`;
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(`M${x} ${y}h${w}v${h}h${-w}z`);
  }
  return [...groups].map(([name, parts]) => {
    const [shape, kind, dim = ""] = name.split(" ");
    return svg("path", {class: `box ${shape} ${dim}`, "data-kind": kind, "data-count": parts.length, d: parts.join(""),
      stroke: `var(--${kind})`});
  });
}

// Labels of annotations are below their boxes, labels of detections above.
function boxLabel({x, y, h, kind, shape, text, passed}, width, height, size) {
  const left = Math.max(size * 0.2, Math.min(x, width - size * 0.6 * text.length));
  const foot = shape === "truth" ? Math.min(y + h + size, height - size * 0.3) : Math.max(y - size * 0.25, size);
  const attributes = {class: passed ? "label" : "label dim", x: left, y: foot, "font-size": size, stroke: `var(--${kind})`};
  return svg("text", attributes, text);
}
