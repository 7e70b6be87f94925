// Elements, numbers in words, and the words of verdicts.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element; attributes whose name begins with "on" are listeners; children that are null are left out. */
export const html = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);

/** The same for SVG. */
export const svg = (tag, attributes = {}, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

/** Place an element over a picture: left, top, right, bottom in its pixels. */
export function place(node, [left, top, right, bottom], width, height) {
  const share = (part, of) => `${(100 * part) / of}%`;
  Object.assign(node.style, {
    left: share(left, width), top: share(top, height),
    width: share(right - left, width), height: share(bottom - top, height),
  });
  return node;
}

/** A share as a whole percentage, with small ones told from none. */
export function percent(share) {
  if (share > 0 && share < 0.005) return "under 1 %";
  if (share < 1 && share >= 0.995) return "over 99 %";
  return `${Math.round(100 * share)} %`;
}

export const WORDS = {
  fake: "Fake", uncertain: "Uncertain", real: "Real", "no-face": "No face", error: "Not judged",
};

const SHAPES = {
  fake: ["path", { d: "M8 1.5 15 14H1z" }],
  uncertain: ["path", { d: "M8 1 15 8 8 15 1 8z", class: "hollow" }],
  real: ["circle", { cx: 8, cy: 8, r: 6.5 }],
  "no-face": ["rect", { x: 2.5, y: 2.5, width: 11, height: 11, class: "hollow" }],
  error: ["path", { d: "M3 3l10 10M13 3L3 13", class: "hollow" }],
};

/** The shape of a verdict: a triangle, a diamond, a disc, a square, a cross. */
export function shape(label) {
  const [tag, attributes] = SHAPES[label];
  return svg("svg", { class: "shape", viewBox: "0 0 16 16", "aria-hidden": "true" }, svg(tag, attributes));
}

/** The word of a verdict with its shape. */
export const verdict = (label) => html("span", { class: `verdict ${label}` }, shape(label), WORDS[label]);
