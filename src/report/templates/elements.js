"use strict";
// Creates elements from text without parsing HTML, so that names cannot inject markup.

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

// Return the page's data, with typed arrays instead of their base64. All machines that run browsers are little-endian.
function readData() {
  return JSON.parse(byId("data").textContent, (_, value) => {
    if (value === null || value.base64 === undefined) return value;
    const binary = atob(value.base64), bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
    return new globalThis[value.type](bytes.buffer);
  });
}

// Format a number. COCO's -1 and missing values become a dash.
function fixed(value) {
  return value === null || value === undefined || value < 0 ? "–" : value.toFixed(3);
}

function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

function sum(values, number = (value) => value) {
  return values.reduce((total, value) => total + number(value), 0);
}

function options(select, names) {
  select.replaceChildren(...names.map(([value, name]) => element("option", {value}, name)));
}

// Replace all children. If a button had the keyboard focus, its successor with the same data-key gets it.
function replace(target, ...children) {
  const key = target.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  target.replaceChildren(...children);
  if (key !== undefined) target.querySelector(`button[data-key="${CSS.escape(key)}"]`)?.focus();
}

// A table that is sorted by clicks on its headings. Columns have title and value(row), and optionally text, style and click.
class SortedTable {
  constructor(table, columns) {
    Object.assign(this, {table, columns, column: 0, direction: 0}); // direction 0: unsorted
  }

  show(rows, last = null, isChosen = () => false) {
    Object.assign(this, {rows, last, isChosen});
    const {value} = this.columns[this.column];
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : (a ?? -1) - (b ?? -1));
    const sorted = this.direction ? [...rows].sort((a, b) => this.direction * compare(value(a), value(b))) : rows;
    replace(this.table, element("thead", {}, element("tr", {}, ...this.columns.map((column, k) => this.heading(column, k)))),
      element("tbody", {}, ...sorted.map((row) => this.row(row))), element("tfoot", {}, ...(last ? [this.row(last)] : [])));
  }

  heading(column, k) {
    const sorted = this.direction && this.column === k;
    return element("th", {scope: "col", "aria-sort": sorted ? (this.direction > 0 ? "ascending" : "descending") : "none"},
      element("button", {type: "button", "data-key": k, click: () => this.sort(k)}, column.title));
  }

  row(row) {
    return element("tr", {class: this.isChosen(row) ? "chosen" : null}, ...this.columns.map(({value, text = value, style, click}) =>
      element("td", {class: style?.(row) ?? null}, click
        ? element("button", {type: "button", title: text(row), "data-key": text(row), click: () => click(row)}, text(row))
        : text(row))));
  }

  // The first click sorts numbers in descending and names in ascending order. The next click reverses the order.
  sort(k) {
    const first = typeof this.columns[k].value(this.rows[0] ?? this.last) === "string" ? 1 : -1;
    this.direction = this.column === k && this.direction === first ? -first : first;
    this.column = k;
    this.show(this.rows, this.last, this.isChosen);
  }
}
