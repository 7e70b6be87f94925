"use strict";
// A slider for the strength of each heat map; without this script the map lies over the face as it is.
for (const slider of document.querySelectorAll("input[data-map]")) {
  const map = slider.closest("figure").querySelector("svg.map");
  slider.closest("label").hidden = false;
  slider.addEventListener("input", () => { map.style.opacity = slider.value / 100; });
}
