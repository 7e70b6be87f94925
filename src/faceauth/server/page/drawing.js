// The drawings: score, heat map, spectrum, stability. Each says in its label what it shows.

import { html, place, shape, svg, WORDS } from "./dom.js";

const picture = (width, height, label, ...children) =>
  svg("svg", { class: "drawing", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...children);

const text = (x, y, words, attributes = {}) => svg("text", { x, y, ...attributes }, words);

/** Where a score lies between real and fake. */
export function scale(score, realTo, fakeFrom) {
  const at = (value) => 8 + 304 * value;
  const zone = (name, from, to) =>
    svg("rect", { class: `zone ${name}`, x: at(from), y: 22, width: Math.max(0, at(to) - at(from) - 2), height: 8, rx: 2 });
  const named = (words, from, to) => text(at((from + to) / 2), 48, words, { "text-anchor": "middle" });
  return picture(
    320, 54, `Score ${score.toFixed(2)}; real up to ${realTo.toFixed(2)}, fake from ${fakeFrom.toFixed(2)}`,
    zone("real", 0, realTo), zone("uncertain", realTo, fakeFrom), zone("fake", fakeFrom, 1),
    named("real", 0, realTo), named("uncertain", realTo, fakeFrom), named("fake", fakeFrom, 1),
    svg("path", { class: "marker", d: `M${at(score)} 20l-6-10h12z` }),
  );
}

/** The evidence of one face over its picture: a smooth field, and signs where it is strong. */
export function heat(map, width, height, opacity) {
  const rows = map.values.length;
  const columns = map.values[0].length;
  const colours = getComputedStyle(document.documentElement);
  const canvas = html("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const signs = svg("svg", { viewBox: `0 0 ${columns} ${rows}`, preserveAspectRatio: "none" });
  map.values.forEach((row, y) => row.forEach((value, x) => {
    context.globalAlpha = Math.min(1, Math.abs(value)) * 0.9;
    context.fillStyle = colours.getPropertyValue(value > 0 ? "--heat-fake" : "--heat-real");
    context.fillRect(x, y, 1, 1);
    if (Math.abs(value) >= 0.85) signs.append(text(x + 0.5, y + 0.75, value > 0 ? "+" : "\u2212", { "text-anchor": "middle" }));
  }));
  const layer = html("div", { class: "heat", "aria-hidden": "true" }, canvas, signs);
  layer.style.opacity = opacity;
  return place(layer, map.region, width, height);
}

/** In words, what a heat map shows. */
export function heatWords(map) {
  let best = { value: 0, x: 0, y: 0 };
  map.values.forEach((row, y) => row.forEach((value, x) => {
    if (Math.abs(value) > Math.abs(best.value)) best = { value, x, y };
  }));
  if (!best.value) return "No part of the face moved the score.";
  const third = (index, of, names) => names[Math.min(2, Math.floor((3 * index) / of))];
  const vertical = third(best.y, map.values.length, ["top", "middle", "bottom"]);
  const side = third(best.x, map.values[0].length, ["left", "centre", "right"]);
  const fall = map.side === "fake" ? map.score - map.without : map.without - map.score;
  const little = fall >= 0.05 ? "" : ": no part decides by itself, and the map says little here";
  const weaker = `takes the network's P(fake) from ${map.score.toFixed(2)} to ${map.without.toFixed(2)}${little}`;
  return `The strongest part, ${vertical} ${side}, speaks for ${best.value > 0 ? "fake" : "real"}. `
    + `Blurring the fifth of the face that speaks most for ${map.side} ${weaker}.`;
}

const line = (xs, ys, kind) => svg("path", { class: `line ${kind}`, d: `M${xs.map((x, i) => `${x} ${ys[i]}`).join("L")}` });

/** The noise of the face by frequency, beside photographs and the generator that is named. */
export function spectrum(found) {
  const curves = [found.decibels, found.real_low, found.real_high, found.real?.decibels, found.generator?.decibels];
  const values = curves.filter(Boolean).flat();
  const [low, high] = [Math.floor(Math.min(...values) / 10) * 10, Math.ceil(Math.max(...values) / 10) * 10];
  const xs = found.frequency.map((f) => Number((40 + 560 * f).toFixed(1)));
  const y = (value) => Number((10 + (150 * (high - value)) / (high - low || 1)).toFixed(1));
  const drawn = [svg("path", { class: "axis", d: "M40 10V160H320" })];
  drawn.push(text(34, 16, `${high}`, { "text-anchor": "end" }), text(34, 160, `${low}`, { "text-anchor": "end" }));
  drawn.push(text(40, 176, "coarse"), text(320, 176, "fine", { "text-anchor": "end" }));
  if (found.real_low.length) {
    const up = xs.map((x, i) => `${x} ${y(found.real_high[i])}`);
    const back = xs.map((x, i) => `${x} ${y(found.real_low[i])}`).reverse();
    drawn.push(svg("path", { class: "band", d: `M${[...up, ...back].join("L")}Z` }));
  }
  const named = [["This face", "this", found.decibels]];
  if (found.real) named.unshift(["Photographs, mean, and the span of most", "photographs", found.real.decibels]);
  if (found.generator) named.push([found.generator.name, "generator", found.generator.decibels]);
  drawn.push(...named.map(([, kind, decibels]) => line(xs, decibels.map(y), kind)));
  const key = named.map(([name, kind]) => html("li", {}, svg(
    "svg", { class: "swatch", viewBox: "0 0 28 8", "aria-hidden": "true" }, line([1, 27], [4, 4], kind)), name));
  return html("div", {}, picture(328, 182, "Noise in decibels, from coarse to fine detail", ...drawn), html("ul", { class: "key" }, key));
}

/** The score after each edit, with the two thresholds. */
export function stability(found, realTo, fakeFrom) {
  const at = (value) => 146 + 164 * value;
  const bottom = 8 + 22 * found.edits.length;
  const rows = found.edits.flatMap(({ edit, score, label }, i) => {
    const y = 14 + 22 * i;
    const mark = shape(label);
    for (const [name, value] of Object.entries({ x: at(score) - 6, y: y - 6, width: 12, height: 12, class: `mark ${label}` })) {
      mark.setAttribute(name, value);
    }
    return [svg("path", { class: "grid", d: `M146 ${y}H310` }), text(0, y + 4, edit), mark];
  });
  const limits = [realTo, fakeFrom].map((value) => svg("path", { class: "limit", d: `M${at(value)} 4V${bottom}` }));
  const named = [["real", realTo / 2], ["uncertain", (realTo + fakeFrom) / 2], ["fake", (1 + fakeFrom) / 2]].map(
    ([words, value]) => text(at(value), bottom + 14, words, { "text-anchor": "middle" }));
  const said = found.edits.map((e) => `${e.edit}: ${WORDS[e.label]} ${e.score.toFixed(2)}`).join(", ");
  return picture(320, bottom + 20, `Score after edits. ${said}`, ...limits, ...rows, ...named);
}
