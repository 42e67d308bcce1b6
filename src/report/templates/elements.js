"use strict";
// Creates elements from text without parsing HTML, so that names cannot inject markup.

const SVG = "http://www.w3.org/2000/svg";

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
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

function readData() {
  return JSON.parse(byId("data").textContent);
}

// Decode base64 of little-endian numbers to a typed array. All machines that run browsers are little-endian.
function unpack(text, Type) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Type(bytes.buffer);
}

// Format a number. COCO's -1 and missing values become a dash.
function fixed(value, digits = 3) {
  return value === null || value === undefined || value < 0 ? "–" : value.toFixed(digits);
}

function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
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

// A table that is sorted by clicks on its headings. Columns have title and value(row), and optionally text, class and click.
class SortedTable {
  constructor(table, columns) {
    this.table = table;
    this.columns = columns;
    this.column = 0;
    this.direction = 0; // 0: unsorted
  }

  show(rows, last = null, isChosen = () => false) {
    this.rows = rows;
    this.last = last;
    this.isChosen = isChosen;
    const value = this.columns[this.column].value;
    const sorted = this.direction ? [...rows].sort((a, b) => this.direction * compare(value(a), value(b))) : rows;
    const parts = [element("thead", {}, element("tr", {}, ...this.columns.map((column, k) => this.heading(column, k)))),
      element("tbody", {}, ...sorted.map((row) => this.row(row)))];
    if (last) parts.push(element("tfoot", {}, this.row(last)));
    this.table.replaceChildren(...parts);
  }

  heading(column, k) {
    const sorted = this.direction && this.column === k;
    return element("th", {scope: "col", "aria-sort": sorted ? (this.direction > 0 ? "ascending" : "descending") : "none"},
      element("button", {type: "button", "data-column": k, click: () => this.sort(k)}, column.title));
  }

  row(row) {
    return element("tr", {class: this.isChosen(row) ? "chosen" : null}, ...this.columns.map((column) => {
      const text = column.text ? column.text(row) : column.value(row);
      const button = () => element("button", {type: "button", title: text, click: () => column.click(row)}, text);
      return element("td", {class: column.style ? column.style(row) : null}, column.click ? button() : text);
    }));
  }

  // The first click sorts numbers in descending and names in ascending order. The next click reverses the order.
  sort(k) {
    const first = typeof this.columns[k].value(this.rows[0] ?? this.last) === "string" ? 1 : -1;
    this.direction = this.column === k && this.direction === first ? -first : first;
    this.column = k;
    this.show(this.rows, this.last, this.isChosen);
    this.table.querySelector(`[data-column="${k}"]`).focus();
  }
}

function compare(a, b) {
  return typeof a === "string" ? a.localeCompare(b) : (a ?? -1) - (b ?? -1);
}
