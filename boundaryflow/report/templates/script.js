"use strict";
const root = document.documentElement;

document.querySelector(".scheme").addEventListener("click", () => {
  const dark = root.dataset.scheme ? root.dataset.scheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.scheme = dark ? "light" : "dark";
});

for (const card of document.querySelectorAll(".card[data-frames]")) {
  const frames = JSON.parse(card.dataset.frames);
  const slider = card.querySelector("input");
  slider.addEventListener("input", () => {
    const at = Number(slider.value);
    card.querySelector("output").textContent = frames[at].strength;
    for (const cell of card.querySelectorAll("[data-metric]")) cell.textContent = frames[at][cell.dataset.metric] ?? "–";
    for (const image of card.querySelectorAll(".after")) {
      image.src = image.dataset.frames.split("|")[at];
      const verdict = image.parentElement.querySelector(".verdict");
      if (verdict) verdict.className = "verdict " + image.dataset.verdicts.split("|")[at];
      const p = image.dataset.probability.split("|")[at];
      image.parentElement.title = image.dataset.requested + (p ? ", judge p = " + p : "");
    }
  });
}

const tip = document.body.appendChild(Object.assign(document.createElement("div"), { className: "tip-box", hidden: true }));
function show(event) {
  const source = event.target.closest?.("[data-tip]");
  tip.hidden = !source;
  if (!source) return;
  tip.textContent = source.dataset.tip;
  const box = source.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left), innerWidth - tip.offsetWidth - 8);
  const below = box.bottom + 8 + tip.offsetHeight < innerHeight;
  tip.style.left = left + "px";
  tip.style.top = (below ? box.bottom + 8 : box.top - tip.offsetHeight - 8) + "px";
}
for (const kind of ["mouseover", "focusin"]) document.addEventListener(kind, show);
for (const kind of ["mouseleave", "focusout", "scroll"]) document.addEventListener(kind, () => { tip.hidden = true; }, true);
