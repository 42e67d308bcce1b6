"use strict";
// A gallery of images with annotated boxes and the boxes of one or two detectors, which can be filtered and hidden.

const PAGE = 24; // number of figures at first, and added by each click
const MAX_LABELS = 12; // labels of the highest scores on a small image

class Gallery {
  // order: function of an image's index that returns its sort key, highest first; caption: function that returns its text;
  // keep: function that returns whether the image is shown; changed: function called when the filter has changed.
  constructor(images, detectors, names, {order, caption, keep = () => true, changed}) {
    Object.assign(this, {images, detectors, names, order, caption, keep, changed, shown: PAGE, enlarged: -1});
    this.filter = {category: -1, kind: "", cell: null};
    this.hidden = new Set(); // ids of unchecked switches
    this.kinds = [...detectors[0].kinds.filter((kind) => kind !== "ignored"), "missed"];
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

  addControls() {
    const listen = (id, event, action) => byId(id).addEventListener(event, action);
    options(byId("kind"), [["", "all images"], ["error", "images with errors"], ...this.kinds.map((kind) => [kind, kind])]);
    listen("kind", "change", () => this.choose({kind: byId("kind").value}));
    options(byId("class"), [[-1, "all classes"], ...this.names.map((name, k) => [k, name])]);
    listen("class", "change", () => this.choose({category: Number(byId("class").value)}));
    const switches = [["annotations", "annotations"], ...this.detectors.map((_, k) =>
      [`detections-${k}`, this.detectors.length > 1 ? `detections of ${"AB"[k]}` : "detections"])];
    byId("switches").append(...switches.map(([id, name]) => element("label", {},
      element("input", {type: "checkbox", id, checked: true, change: ({target}) => {
        this.hidden[target.checked ? "delete" : "add"](id);
        this.draw();
      }}), ` ${name} `)));
    listen("cell", "click", () => this.choose({cell: null}));
    listen("more", "click", () => {
      this.shown += PAGE;
      this.draw();
    });
    listen("previous", "click", () => this.enlarge(this.enlarged - 1));
    listen("next", "click", () => this.enlarge(this.enlarged + 1));
    listen("close", "click", () => byId("enlarged").close());
    byId("legend").replaceChildren(...this.kinds.map((kind) => element("li", {},
      element("i", {style: `border-color: var(--${kind})`, class: kind === "missed" ? "dashed" : null}), kind)),
    element("li", {}, "solid: detection, dashed: annotation"));
  }

  // Change the filter.
  choose(change) {
    const before = this.filter;
    // A cell implies its classes and kinds.
    this.filter = {...before, ...change.cell ? {category: -1, kind: ""} : {cell: null}, ...change};
    byId("kind").value = this.filter.kind;
    byId("class").value = this.filter.category;
    this.shown = PAGE;
    this.changed(this.filter, before);
    this.update();
  }

  // Sort and filter again, for example after a change of the threshold.
  update() {
    this.chosen = this.images
      .filter(({image}) => this.keep(image) && this.detectors.some((detector) => detector.matches(image, this.filter)))
      .sort((a, b) => this.order(b.image) - this.order(a.image));
    this.draw();
  }

  draw() {
    const {cell} = this.filter, names = [...this.names, "background"];
    byId("gallery-count").textContent = `${counted(this.chosen.length, "image")} of the ${this.images.length} in this file`;
    byId("cell").hidden = !cell;
    byId("cell").textContent = cell ? `✕ annotated ${names[cell[0]]}, detected ${names[cell[1]]}` : "";
    this.observer.disconnect();
    const figures = this.chosen.slice(0, this.shown).map((image, k) => element("figure", {"data-id": image.id},
      element("button", {type: "button", "data-number": this.images.indexOf(image), "aria-label": `Enlarge ${image.name}`,
        style: `aspect-ratio: ${image.width * this.detectors.length} / ${image.height}`, click: () => this.enlarge(k)}),
      element("figcaption", {}, `${image.name} · ${this.caption(image.image)}`)));
    byId("figures").replaceChildren(...figures);
    figures.forEach((figure) => this.observer.observe(figure.firstChild));
    byId("more").hidden = this.chosen.length <= this.shown;
    if (byId("enlarged").open) this.enlarge(this.enlarged);
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

  // Return an image with its boxes, once per detector. letters: number of letter heights in the longer side; maxLabels: maximum
  // number of labels; if it is finite, only errors have labels.
  panels(image, letters, maxLabels) {
    const {name, width, height, jpeg} = image, size = Math.max(width, height * 1.3) / letters;
    return element("div", {class: "panels"}, ...this.detectors.map((_, k) => {
      const boxes = this.visibleBoxes(image, k);
      const labelled = maxLabels === Infinity ? boxes : boxes.filter(({kind, passed}) => kind !== "correct" && passed);
      return svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name},
        jpeg ? svg("image", {href: `data:image/jpeg;base64,${jpeg}`, width, height, preserveAspectRatio: "none"})
          : svg("text", {x: width / 2, y: height / 2, "text-anchor": "middle", "font-size": size, fill: "currentColor"},
            "cannot be read"),
        ...boxPaths(boxes), ...labelled.slice(0, maxLabels).map((box) => boxLabel(box, width, height, size)));
    }));
  }

  // Return the boxes of an image that are not hidden, with coordinates and text.
  visibleBoxes({image, boxes: [truth, ...found]}, k) {
    return [...this.detectors[k].visible(image, this.filter)]
      .filter(({shape}) => !this.hidden.has(shape === "truth" ? "annotations" : `detections-${k}`))
      .map((box) => {
        const [x, y, w, h] = (box.shape === "truth" ? truth : found[k]).subarray(4 * box.number);
        const ending = box.shape === "truth" ? (box.crowd ? " (crowd)" : "") : ` ${box.score.toFixed(2)}`;
        return {...box, x, y, w, h, text: this.names[box.category] + ending};
      });
  }
}

// Draw all boxes of the same shape, kind and brightness as one path.
function boxPaths(boxes) {
  const groups = new Map();
  for (const box of boxes) {
    const key = `${box.shape} ${box.kind} ${box.passed}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(box);
  }
  return [...groups.values()].map((group) => {
    const [{shape, kind, passed}] = group;
    return svg("path", {class: `box ${shape} ${passed ? "" : "dim"}`, "data-kind": kind, "data-count": group.length,
      d: group.map(({x, y, w, h}) => `M${x} ${y}h${w}v${h}h${-w}z`).join(""), stroke: `var(--${kind})`});
  });
}

// Labels of annotations are below their boxes, labels of detections above.
function boxLabel({x, y, h, kind, shape, text, passed}, width, height, size) {
  const left = Math.max(size * 0.2, Math.min(x, width - size * 0.6 * text.length));
  const foot = shape === "truth" ? Math.min(y + h + size, height - size * 0.3) : Math.max(y - size * 0.25, size);
  const attributes = {class: passed ? "label" : "label dim", x: left, y: foot, "font-size": size, stroke: `var(--${kind})`};
  return svg("text", attributes, text);
}
