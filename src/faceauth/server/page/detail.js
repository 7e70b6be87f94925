// One photo: the picture with its faces, and all that is known about the chosen one.

import { heat, heatWords, scale, spectrum, stability } from "./drawing.js";
import { html, percent, place, verdict, WORDS } from "./dom.js";

const REASONS = {
  "too small": "The face spans less than 48 pixels; nothing was measured on such faces.",
  "covered": "A part of the face is one flat tone, as where something is laid over it, and the score lies between the thresholds.",
  "blurred or dark": "The face is blurred or dark, and the score lies between the thresholds.",
  "changes when re-saved": "The picture as it is reaches the threshold of fake; on average over re-saved views it does not.",
  "unlike anything tested": "The score lies between the thresholds, and the model has met nothing like this face.",
  "between thresholds": "The score lies between the thresholds of real and of fake.",
};
const KINDS = {
  says: ["The file says", "Anybody can write this."],
  signed: ["Signed", "What a signature covers."],
  measured: ["Measured", "Read from the pixels and tables."],
  absent: ["Absent", "Which proves nothing."],
};
const SHOWN = 5;
const SMALLEST = 448; // pixels that a picture is shown in at least, where there is room

/** What a row is called: its label, or that it was not judged. */
export const labelOf = (row) => row.label ?? "error";

/** The detail of a photo. `on` has the listeners: face(index), explain(), opacity(value), report(), again(). */
export function detail(photo, model, offers, view, on) {
  const row = photo.rows?.[view.face];
  return [
    html("h2", { class: "title" }, photo.name),
    ...(photo.rows ? judged(photo, row, model, offers, view, on) : [waiting(photo, on)]),
  ];
}

function waiting(photo, on) {
  if (photo.state !== "failed") return html("p", { class: "note" }, photo.state === "judging" ? "Being judged." : "Waiting.");
  return html("div", { class: "note" },
    html("p", {}, verdict("error")), html("p", {}, photo.error), html("p", { class: "small" }, photo.hint),
    html("button", { type: "button", onclick: on.again, "data-focus": "again" }, "Try again"));
}

function judged(photo, row, model, offers, view, on) {
  const label = labelOf(row);
  const told = photo.explanation?.faces[view.face];
  const top = html("div", { class: "top" }, stage(photo, view, told, on), html("section", { class: "panel", "aria-label": "Verdict" },
    ...(photo.rows.length > 1 ? [html("p", { class: "small" }, `Face ${view.face + 1} of ${photo.rows.length}`)] : []),
    html("p", { class: "word" }, verdict(label)),
    ...sayings(row, model), ...actions(photo, row, told, offers, on)));
  const parts = [generators(row), evidence(photo)].filter(Boolean);
  return [top, row.score === null ? null : meaning(row, model, told), html("div", { class: "pair" }, parts), told ? explained(photo, told, row, model) : null];
}

function sayings(row, model) {
  if (row.error) return [html("p", {}, `${row.error}.`)];
  const said = row.note ? [html("p", {}, `${row.note[0].toUpperCase()}${row.note.slice(1)}.`)] : [];
  if (row.label === "no-face") return [html("p", {}, "No face was found, so nothing was judged."), ...said];
  if (row.score !== null) said.push(html("p", { class: "score" }, "Score ", html("strong", {}, row.score.toFixed(2))));
  if (model && row.score !== null) said.push(scale(row.score, model.real_to, row.threshold));
  if (row.reason) said.push(html("p", {}, REASONS[row.reason] ?? row.reason));
  if (row.face === null) said.push(html("p", {}, "No face was found; this is of the whole picture, for which nothing was measured."));
  else said.push(html("p", {}, alarms(row, model)));
  return said;
}

function alarms(row, model) {
  if (row.false_alarm_rate === null || !model || model.measured_on.startsWith("nothing")) {
    return "How often a real photograph is called fake was not measured for this model.";
  }
  const rate = (100 * row.false_alarm_rate).toFixed(1);
  return `Of the real photographs that it was measured on, ${rate} of 100 are called fake at this threshold (${row.threshold.toFixed(2)}).`;
}

function meaning(row, model, told) {
  const worth = told?.worth.sentences ?? [];
  const limits = model ? `Up to ${model.real_to.toFixed(2)} a face is called real, from ${row.threshold.toFixed(2)} fake, and uncertain between.` : "";
  return html("details", { class: "panel", "data-open": "meaning" }, html("summary", { "data-focus": "meaning" }, "What does this number mean?"),
    html("p", {}, "The score is the model's estimate, from 0 to 1, that the face is fake, calibrated on pictures of kinds that it had not seen. ", limits),
    html("p", {}, "Where few pictures are fake, most of those called fake are real: it counts where the picture came from. Kinds of pictures that the model has never met are judged less well."),
    model ? html("p", { class: "small" }, `Measured on ${model.measured_on}.`) : null,
    worth.map((sentence) => html("p", {}, sentence)));
}

function stage(photo, view, told, on) {
  const { width, height } = photo.rows[0];
  const frame = html("div", { class: "frame" });
  if (width) frame.style.width = `min(100%, ${Math.max(width, SMALLEST)}px, ${(70 * width) / height}vh)`;
  const image = html("img", { src: photo.url, alt: `The photo ${photo.name}` });
  image.addEventListener("error", () => image.replaceWith(html("p", { class: "note" }, "This browser cannot show the picture; it was judged all the same.")));
  frame.append(image);
  if (told?.heat_map && width) frame.append(heat(told.heat_map, width, height, view.opacity));
  photo.rows.forEach((row, index) => {
    if (!row.box || !width) return;
    const label = labelOf(row);
    const chosen = index === view.face;
    frame.append(place(html("button", {
      class: `face ${label}`, type: "button", "aria-pressed": String(chosen), "data-focus": `face-${index}`,
      "aria-label": `Face ${index + 1}: ${WORDS[label]}`, onclick: () => on.face(index),
    }, html("span", { class: row.box[1] < 0.1 * height ? "tag inside" : "tag" }, photo.rows.length > 1 ? `${index + 1} ` : "", verdict(label))), row.box, width, height));
  });
  return html("figure", {}, frame, told?.heat_map ? slider(told.heat_map, view, on) : null);
}

function slider(map, view, on) {
  return html("figcaption", {},
    html("label", { class: "row" }, "Heat map",
      html("input", { type: "range", min: 0, max: 1, step: 0.05, value: view.opacity, "data-focus": "opacity", oninput: (event) => on.opacity(event.target.value) })),
    html("p", { class: "small" }, html("span", { class: "heat-key fake" }, "+"), " speaks for fake, ", html("span", { class: "heat-key real" }, "\u2212"), " for real. ", heatWords(map)));
}

const section = (title, ...children) => html("section", { class: "panel" }, html("h3", {}, title), ...children);

function generators(row) {
  if (!row.generators) return null;
  const shares = Object.entries(row.generators).sort((a, b) => b[1] - a[1]);
  const item = ([name, share]) => {
    const bar = html("span", { class: "bar", "aria-hidden": "true" });
    bar.style.setProperty("--share", share);
    return html("li", {}, html("span", {}, name), html("span", { class: "number" }, percent(share)), bar);
  };
  const unknown = row.generator === "unknown" ? "No known generator explains it well." : null;
  return section("What it most resembles", unknown ? html("p", { class: "small" }, unknown) : null,
    html("ul", { class: "shares" }, shares.slice(0, SHOWN).map(item)),
    shares.length > SHOWN ? html("p", { class: "small" }, `and ${shares.length - SHOWN} more, in the report`) : null);
}

function evidence(photo) {
  const report = photo.explanation?.provenance ?? photo.provenance;
  if (!report && !photo.reading && !photo.provenanceError) return null;
  if (!report) return section("What the file says", html("p", { class: "small" }, photo.provenanceError ?? "Being read."));
  if (report.error) return section("What the file says", html("p", {}, `${report.error}.`));
  const groups = Object.entries(KINDS).map(([kind, [title, worth]]) => {
    const found = report.findings.filter((finding) => finding.kind === kind);
    if (!found.length) return null;
    if (kind === "absent") return html("div", {}, html("h4", {}, title), html("p", {}, `${found.map((f) => f.where).join(", ")}. `, html("span", { class: "small" }, worth)));
    return html("div", {}, html("h4", {}, title, html("span", { class: "small" }, ` ${worth}`)),
      html("ul", {}, found.map((f) => html("li", {}, html("strong", {}, f.where), ` ${f.text}`))));
  });
  return section("What the file says", ...report.disagreements.map((words) => html("p", { class: "note" }, words)), ...groups.filter(Boolean),
    html("p", { class: "small" }, "None of it takes part in the score."));
}

function explained(photo, told, row, model) {
  const parts = [];
  if (told.spectrum) parts.push(section("Noise by fineness", spectrum(told.spectrum)));
  if (told.stability && model) {
    const { changes, edits } = told.stability;
    parts.push(section("How firm it is", html("p", {}, `${changes} of ${edits.length - 1} edits that say nothing of the making change the label.`),
      stability(told.stability, model.real_to, row.threshold)));
  }
  if (told.nearest.length) parts.push(section("Nearest training sources", html("table", {},
    html("thead", {}, html("tr", {}, ["Source", "Made by", "Share"].map((name) => html("th", { scope: "col" }, name)))),
    html("tbody", {}, told.nearest.slice(0, SHOWN).map((near) => html("tr", {},
      html("td", {}, near.source), html("td", {}, near.generator), html("td", { class: "number" }, percent(near.share))))))));
  parts.push(section("What none of this proves", html("ul", { class: "apart" }, photo.explanation.caveats.map((words) => html("li", {}, words)))));
  return html("div", { class: "pair", id: "explained" }, parts);
}

function actions(photo, row, told, offers, on) {
  const button = (words, name, listener) => html("button", { type: "button", onclick: listener, "data-focus": name }, words);
  const explainable = offers.explain && !told && row.score !== null;
  const words = photo.explaining ? "Being explained. It takes many times as long as the verdict."
    : photo.explainError ?? "Where the evidence lies, how firm it is, and what is like it.";
  return [
    explainable ? html("p", { class: "small apart" }, words) : null,
    html("div", { class: "row" }, explainable && !photo.explaining ? button("Explain", "explain", on.explain) : null, button("Download the report", "report", on.report)),
  ];
}
