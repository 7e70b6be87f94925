"use strict";
// Each picture's card lies in a <noscript>, shown as it is without this script. With it, the cards that match are put
// on the page as far as it is scrolled, so that thousands stay quick.
const CARDS_AT_ONCE = 60;
const GRAVITY = ["fake", "uncertain", "real", "no-face", "unreadable"];
const list = document.querySelector("main");
const [search, ...selects] = document.querySelectorAll(".controls input, .controls select");
const [label, generator, reason, claim, order] = selects;
const found = document.querySelector("#found");
const end = document.querySelector("#end");

const words = (text) => (text ? text.split("\n") : []);
const cards = [...list.querySelectorAll("noscript")].map((held, place) => {
  const { path, labels, generators, reasons, claims, score } = held.dataset;
  held.remove();
  return {
    html: held.textContent, place, path, score: score === "" ? null : Number(score), text: path.toLowerCase(),
    label: words(labels), generator: words(generators), reason: words(reasons), claim: words(claims),
  };
});
let matching = cards;
let shown = 0;

function fill(select, values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const rank = (value) => GRAVITY.indexOf(value);
  const sorted = [...counts].sort(([a, n], [b, m]) => rank(a) - rank(b) || m - n || (a < b ? -1 : 1));
  for (const [value, count] of sorted) select.add(new Option(`${value} (${count})`, value));
  select.disabled = sorted.length === 0;
}

const ORDERS = {
  given: (a, b) => a.place - b.place,
  high: (a, b) => (b.score ?? -1) - (a.score ?? -1) || a.place - b.place,
  low: (a, b) => (a.score ?? 2) - (b.score ?? 2) || a.place - b.place,
  path: (a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : a.place - b.place),
};

function matches(card) {
  return [[label, card.label], [generator, card.generator], [reason, card.reason], [claim, card.claim]]
    .every(([select, values]) => select.value === "" || values.includes(select.value))
    && card.text.includes(search.value.trim().toLowerCase());
}

function show(count) {
  const next = matching.slice(shown, shown + count);
  list.insertAdjacentHTML("beforeend", next.map((card) => card.html).join(""));
  shown += next.length;
  end.hidden = shown >= matching.length;
}

function update() {
  matching = cards.filter(matches).sort(ORDERS[order.value]);
  found.textContent = `${matching.length} of ${cards.length} pictures`;
  list.replaceChildren();
  shown = 0;
  show(CARDS_AT_ONCE);
}

function columns() {
  return getComputedStyle(list).gridTemplateColumns.split(" ").length;
}

function move(event) {
  const here = event.target.closest(".card");
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns(), Home: -Infinity, End: Infinity };
  if (!here || !(event.key in steps)) return;
  const place = [...list.children].indexOf(here) + steps[event.key];
  if (place >= shown) show(Number.isFinite(place) ? CARDS_AT_ONCE : matching.length);
  const card = list.children[Math.max(0, Math.min(place, shown - 1))];
  event.preventDefault();
  (card.querySelector("a") ?? card).focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !event.target.matches("input, select")) {
    event.preventDefault();
    search.focus();
  } else {
    move(event);
  }
});
window.addEventListener("beforeprint", () => show(matching.length));
new IntersectionObserver(([mark]) => mark.isIntersecting && show(CARDS_AT_ONCE), { rootMargin: "1200px" }).observe(end);

fill(label, cards.flatMap((card) => card.label));
fill(generator, cards.flatMap((card) => card.generator));
fill(reason, cards.flatMap((card) => card.reason));
for (const control of [search, ...selects]) control.addEventListener("input", update);
document.querySelector(".controls").hidden = false;
document.querySelector(".keys").hidden = false;
update();
