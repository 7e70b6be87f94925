// The queue of photos and what the user does with it.

import { detail, labelOf } from "./detail.js";
import { html, verdict, WORDS } from "./dom.js";
import { forget, keep, kept, preview } from "./history.js";
import { about, judge, useKey } from "./service.js";

const AT_ONCE = 2;
const WORST = ["fake", "uncertain", "real", "error", "no-face"];
const get = (id) => document.getElementById(id);

const photos = [];
const offers = { explain: false };
const view = { photo: null, face: 0, opacity: 0.6 };
let model = null;
let limits = null;
let locked = false; // until a key is given

const say = (words) => { get("status").textContent = words; };
const wordOf = (photo) => photo.rows ? WORST.find((label) => photo.rows.some((row) => labelOf(row) === label)) : "error";

function add(files) {
  for (const file of files) {
    photos.push({ file, name: file.name || "pasted picture", url: URL.createObjectURL(file), state: "waiting" });
  }
  if (!view.photo && photos.length) choose(photos[0]);
  render();
  work();
}

function work() {
  while (!locked && photos.filter((photo) => photo.state === "judging").length < AT_ONCE) {
    const next = photos.find((photo) => photo.state === "waiting");
    if (!next) return;
    next.state = "judging";
    detect(next).finally(() => { render(); work(); });
  }
}

async function detect(photo) {
  render();
  try {
    if (limits && photo.file.size > limits.max_bytes) throw new Error(`The file has more than ${Math.floor(limits.max_bytes / 1e6)} MB, which is the most that is taken here.`);
    photo.rows = await judge("detect", photo.file);
    photo.state = "done";
    say(`${photo.name}: ${photo.rows.map((row) => row.error ?? WORDS[labelOf(row)]).join(", ")}`);
    await remember(photo);
    if (photo === view.photo) readFile(photo);
  } catch (error) {
    refused(photo, error, "error");
    photo.state = error.status === 401 ? "waiting" : "failed";
    if (photo.state === "failed") say(`${photo.name}: ${error.message}`);
  }
}

function refused(photo, error, field) {
  if (error.status === 401) askForKey(error.message);
  photo[field] = error.message;
  photo.hint = error.hint ?? "";
}

async function readFile(photo) {
  if (photo.provenance || photo.reading || photo.rows.some((row) => row.error && row.face === null)) return;
  photo.reading = true;
  photo.provenanceError = undefined;
  try {
    [photo.provenance] = await judge("provenance", photo.file);
  } catch (error) {
    refused(photo, error, "provenanceError");
  }
  photo.reading = false;
  render();
}

async function explain(photo) {
  photo.explaining = true;
  photo.explainError = undefined;
  say("Being explained.");
  render();
  try {
    photo.explanation = await judge("explain", photo.file);
    say("The explanation is there.");
  } catch (error) {
    if (error.status === 404) offers.explain = false;
    refused(photo, error, "explainError");
    say(error.message);
  }
  photo.explaining = false;
  render();
}

function choose(photo) {
  view.photo = photo;
  view.face = 0;
  if (photo?.rows) readFile(photo);
  render();
}

function report(photo) {
  const found = photo.explanation ?? { rows: photo.rows, provenance: photo.provenance ?? null };
  const url = URL.createObjectURL(new Blob([JSON.stringify(found, null, 1)], { type: "application/json" }));
  html("a", { href: url, download: `${photo.name.replace(/\.[^.]*$/, "")}.faceauth.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function render() {
  get("work").hidden = !photos.length;
  const done = photos.filter((photo) => photo.state === "done" || photo.state === "failed").length;
  get("progress").max = photos.length || 1;
  get("progress").value = done;
  get("progress-text").textContent = `${done} of ${photos.length} judged`;
  replace(get("list"), photos.map(item));
  const photo = view.photo;
  replace(get("detail"), photo ? detail(photo, model, offers, view, {
    face: (index) => { view.face = index; render(); },
    explain: () => explain(photo),
    opacity: (value) => { view.opacity = value; document.querySelector(".heat").style.opacity = value; },
    report: () => report(photo),
    again: () => { photo.state = "waiting"; render(); work(); },
  }) : []);
}

/** Put new children in place, with what was focused and open as it was. */
function replace(parent, children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  const open = [...parent.querySelectorAll("details[open]")].map((node) => node.dataset.open);
  parent.replaceChildren(...children.filter(Boolean));
  for (const name of open) parent.querySelector(`[data-open="${name}"]`)?.setAttribute("open", "");
  if (focused) (parent.querySelector(`[data-focus="${focused}"]`) ?? parent).focus({ preventScroll: true });
}

function item(photo, index) {
  const state = { waiting: "Waiting", judging: "Being judged" }[photo.state];
  return html("li", {}, html("button", {
    type: "button", class: "photo", "aria-current": photo === view.photo ? "true" : null, "data-focus": `photo-${index}`, onclick: () => choose(photo),
  }, html("img", { src: photo.url, alt: "" }), html("span", { class: "name" }, photo.name), state ? html("span", { class: "small" }, state) : verdict(wordOf(photo))));
}

function askForKey(words) {
  locked = true;
  get("key").hidden = false;
  get("key-said").textContent = words;
  get("key-value").focus();
}

async function remember(photo) {
  if (!kept()) return;
  const [row] = photo.rows.filter((each) => labelOf(each) === wordOf(photo));
  const entry = { name: photo.name, at: new Date().toISOString(), label: labelOf(row), score: row.score, image: await preview(photo.file) };
  const before = kept(); // it may have been turned off meanwhile
  if (!before) return;
  store([entry, ...before]);
}

function store(entries) {
  try {
    keep(entries);
  } catch {
    get("history-said").textContent = "This browser does not let the page keep anything.";
  }
  renderHistory();
}

function renderHistory() {
  const entries = kept();
  get("keep").checked = Boolean(entries);
  get("forget").hidden = !entries?.length;
  get("past").replaceChildren(...(entries ?? []).map((entry) => html("li", {},
    entry.image ? html("img", { src: entry.image, alt: "" }) : null,
    html("span", { class: "name" }, entry.name), verdict(entry.label in WORDS ? entry.label : "error"),
    html("span", { class: "small" }, `${entry.score === null ? "" : `${entry.score.toFixed(2)}, `}${new Date(entry.at).toLocaleString()}`))));
}

function whereTheyGo() {
  const loopback = /^(localhost|127\.[\d.]+|\[::1\])$/.test(location.hostname);
  const judged = "It judges them in memory and keeps nothing.";
  if (loopback) return `Photos go to the service at ${location.host}, an address of this computer: unless somebody forwards that address, they do not leave it. ${judged}`;
  const plain = location.protocol === "https:" ? "" : " The connection is not encrypted.";
  return `Photos go to the service at ${location.host}, and to nobody else. ${judged}${plain}`;
}

async function start() {
  get("where").textContent = whereTheyGo();
  renderHistory();
  try {
    const found = await about();
    [model] = found.models;
    limits = found.limits;
    offers.explain = found.tasks.includes("explain");
    get("model").textContent = `Judged by the model ${model.name} ${model.version}.`;
    render();
  } catch (error) {
    say(error.message);
  }
}

function listen() {
  get("choose").addEventListener("click", () => get("files").click());
  get("files").addEventListener("change", (event) => { add([...event.target.files]); event.target.value = ""; });
  get("remove").addEventListener("click", () => {
    photos.splice(0).forEach((photo) => URL.revokeObjectURL(photo.url));
    choose(null);
    get("choose").focus();
  });
  get("key").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(get("key-value").value.trim());
    get("key").hidden = true;
    locked = false;
    work();
    if (view.photo?.rows) readFile(view.photo);
  });
  get("keep").addEventListener("change", (event) => event.target.checked ? store([]) : clear());
  get("forget").addEventListener("click", () => { store([]); say("The history is cleared."); });
  document.addEventListener("paste", (event) => add([...event.clipboardData.files]));
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
  document.addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("over"); add([...event.dataTransfer.files]); });
}

function clear() {
  forget();
  renderHistory();
}

listen();
start();
