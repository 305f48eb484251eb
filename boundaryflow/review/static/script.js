"use strict";
// The page keeps the order of all cases as numbers, and of the cases on screen their rows and pictures.

const $ = (id) => document.getElementById(id);
const make = (tag, props = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...children);
  return element;
};
const WIDTHS = { s: 176, m: 264, l: 400 }, GAP = 12, PAD = 16, EXTRA = 69;
const MAX_HEIGHT = 12e6; // browsers limit the height of an element: beyond this the scroll bar moves faster
const MAX_ROWS = 4000, MAX_STRIPS = 500, CHUNK = 200;

let facts = null, order = new Int32Array(0), stamp = "", cursor = 0, asked = 0;
const rows = new Map(), strips = new Map(), chosen = new Map(), tiles = new Map(), undo = [];
let pending = new Map(), sending = false;
let wanted = { mode: "best", sort: "", descending: false, find: "", edits: [], states: [], ranges: {}, size: "m" };

/* ---- talking to the server ---- */

class Changed extends Error {}
async function ask(path, options) {
  let answer;
  try { answer = await fetch(path, options); }
  catch (error) {
    if (error.name !== "AbortError") note("No answer: is `boundaryflow review` still running?");
    throw error;
  }
  if (answer.ok) return answer;
  if (answer.status === 409) throw new Changed();
  const { detail } = await answer.json().catch(() => ({}));
  const text = typeof detail === "string" ? detail : `The server answered with status ${answer.status}.`;
  if (!path.startsWith("strip/")) note(answer.status === 404 && !detail ? "This address is no longer valid; start `boundaryflow review` again." : text);
  throw new Error(text);
}
const json = async (path, options) => (await ask(path, options)).json();
const quiet = (promise) => promise.catch((error) => { if (error instanceof Changed) start(); });

let noteTimer;
function note(text, ms = 7000) {
  $("note").textContent = text;
  $("note").hidden = !text;
  clearTimeout(noteTimer);
  noteTimer = setTimeout(() => { $("note").hidden = true; }, ms);
}

/* ---- what is shown ---- */

const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−"));
const strengthOf = (k) => `${facts.strengths[k]}`.replace("-", "−");
function shownAt(row) {
  if (chosen.has(row.case)) return chosen.get(row.case);
  if (row.at >= 0) return row.at;
  return wanted.mode === "best" || wanted.mode === "weakest" ? row[wanted.mode] : Number(wanted.mode);
}
const stateOf = (row) => (pending.has(row.case) ? pending.get(row.case).verdict ?? "open" : row.state);
const measure = (row, name) => row.measures[name]?.[shownAt(row)] ?? null;
function titleOf(row) {
  const targets = Object.entries(JSON.parse(row.targets));
  if (targets.length === 1) return `${targets[0][1] > 0 ? "+" : "−"} ${row.edit.replaceAll("_", " ")}`;
  return row.edit.replaceAll("_", " ");
}

async function start() {
  facts = await json("api/facts");
  rows.clear(); strips.clear(); chosen.clear();
  if ($("one").open) $("one").close();
  document.title = `Review ${facts.dataset} · boundaryflow`;
  $("name").textContent = facts.dataset;
  const last = facts.strengths.length - 1;
  $("dial").max = last;
  if (!["best", "weakest"].includes(wanted.mode)) wanted.mode = `${Math.min(last, Number(wanted.mode) || 0)}`;
  wanted.edits = wanted.edits.filter((name) => facts.edits.some((edit) => edit.name === name));
  for (const name of Object.keys(wanted.ranges)) if (!(name in facts.measures)) delete wanted.ranges[name];
  drawFilters(); drawTools(); tell(facts);
  await query();
}

function queryText() {
  const query = new URLSearchParams({ generation: facts.generation, mode: wanted.mode });
  for (const name of wanted.edits) query.append("edit", name);
  for (const name of wanted.states) query.append("state", name);
  for (const [name, [low, high]] of Object.entries(wanted.ranges)) query.set(name, `${low}..${high}`);
  if (wanted.find) query.set("find", wanted.find);
  if (wanted.sort) query.set("sort", wanted.sort);
  if (wanted.descending) query.set("descending", "1");
  return query;
}

async function query({ keep = false } = {}) {
  const mine = ++asked, before = order[cursor];
  history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(wanted))}`);
  const data = await (await ask(`api/order?${queryText()}`)).arrayBuffer();
  if (mine !== asked) return;
  order = new Int32Array(data);
  cursor = Math.max(0, keep ? order.indexOf(before) : 0);
  $("shown").textContent = order.length === facts.num ? `${facts.num.toLocaleString()} pairs` : `${order.length.toLocaleString()} of ${facts.num.toLocaleString()} pairs`;
  $("open-all").hidden = !order.length;
  $("empty").hidden = order.length > 0;
  $("empty").textContent = facts.num ? "No pair fits these filters." : "There is nothing to review.";
  if (!keep) $("grid").scrollTop = 0;
  releaseAll(); layout();
}
const requery = (options) => quiet(query(options));

function tell(state) {
  const { accepted, rejected, open } = state.counts, all = accepted + rejected + open;
  stamp = state.stamp; facts.counts = state.counts;
  $("counts").replaceChildren(make("b", { textContent: accepted.toLocaleString() }), " accepted · ", make("b", { textContent: rejected.toLocaleString() }), " rejected");
  $("counts").title = `${open.toLocaleString()} open` + (state.gone ? `; ${state.gone} verdicts are on edits that this run does not have, and are kept` : "");
  $("part-accepted").style.width = `${100 * accepted / all}%`;
  $("part-rejected").style.width = `${100 * rejected / all}%`;
  for (const input of $("states").querySelectorAll("input")) input.nextSibling.lastChild.textContent = state.counts[input.value].toLocaleString();
}

/* ---- the virtual list ---- */

const geo = { cols: 1, w: 0, h: 0, lines: 0, total: 0, height: 0 };
function layout() {
  const width = $("grid").clientWidth - 2 * PAD;
  const narrow = width < 560;
  const least = narrow ? Math.min(width, 260) : WIDTHS[wanted.size];
  geo.cols = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
  geo.w = (width - GAP * (geo.cols - 1)) / geo.cols;
  geo.h = Math.round((geo.w - 17) / 2) + EXTRA;
  geo.lines = Math.ceil(order.length / geo.cols);
  geo.total = geo.lines * (geo.h + GAP) - GAP + 2 * PAD;
  geo.height = Math.min(geo.total, MAX_HEIGHT);
  $("space").style.height = order.length ? `${geo.height}px` : "0";
  render();
}
/** How far the real list is ahead of the scroll bar; 0 unless the list is taller than an element may be. */
function offset() {
  const view = $("grid").clientHeight, most = geo.height - view;
  return most > 0 ? ($("grid").scrollTop / most) * (geo.total - geo.height) : 0;
}

let frame = 0, loadTimer = 0, passed = 0, flying = false;
function render() {
  frame = 0;
  if (!facts) return;
  const top = $("grid").scrollTop, ahead = offset(), view = $("grid").clientHeight, step = geo.h + GAP;
  const first = Math.max(0, Math.floor((top + ahead - PAD) / step) - 1), last = Math.ceil((top + ahead + view - PAD) / step) + 1;
  const from = first * geo.cols, to = Math.min(order.length, last * geo.cols);
  for (const [position, tile] of tiles) if (position < from || position >= to) release(position, tile);
  for (let position = from; position < to; position++) {
    let tile = tiles.get(position);
    if (!tile) { tile = free.pop() ?? newTile(); tile.position = position; tiles.set(position, tile); fill(tile); }
    const x = PAD + (position % geo.cols) * (geo.w + GAP), y = PAD + Math.floor(position / geo.cols) * step - ahead;
    const place = `width:${geo.w}px;height:${geo.h}px;transform:translate(${x}px,${y}px)`;
    if (tile.place !== place) tile.style.cssText = tile.place = place;
  }
  for (const tile of free) tile.remove(); // those that were not used again at once
  range = [from, to];
  flying = Math.abs(top + ahead - passed) > view / 3; // nothing is asked for then
  passed = top + ahead;
  if (flying) { clearTimeout(loadTimer); loadTimer = 0; }
  loadTimer ||= setTimeout(() => { loadTimer = 0; flying = false; load(); }, 50);
}
let range = [0, 0];
const free = [];
function release(position, tile) {
  tiles.delete(position);
  tile.waits?.abort(); tile.waits = null; tile.row = null;
  if (tile.contains(document.activeElement)) $("grid").focus({ preventScroll: true });
  free.push(tile);
}
function releaseAll() { for (const [position, tile] of [...tiles]) release(position, tile); }

let loading = false, again = false;
async function load() {
  if (loading) { again = true; return; }
  const [from, to] = range, ahead = geo.cols * 6;
  const ids = [...order.slice(Math.max(0, from - ahead), to + ahead)].filter((id) => !rows.has(id)).slice(0, CHUNK);
  if (ids.length) {
    loading = true;
    try { await fetchRows(ids); } catch (error) { if (error instanceof Changed) start(); }
    loading = false;
  }
  for (const tile of tiles.values()) if (!tile.row || !tile.strip) fill(tile);
  if (again) { again = false; load(); }
}
async function fetchRows(ids) {
  for (const row of await json(`api/cases?generation=${facts.generation}&ids=${ids.join(",")}`)) rows.set(row.case, row);
  for (const id of rows.keys()) { if (rows.size <= MAX_ROWS) break; rows.delete(id); }
}

async function stripOf(id, signal) {
  if (strips.has(id)) { const found = strips.get(id); strips.delete(id); strips.set(id, found); return found; }
  const answer = await ask(`strip/${facts.generation}/${id}.webp`, { signal });
  const bitmap = await createImageBitmap(await answer.blob());
  strips.set(id, bitmap);
  for (const [old, image] of strips) { if (strips.size <= MAX_STRIPS) break; strips.delete(old); image.close(); }
  return bitmap;
}
function paint(canvas, strip, place) {
  const side = strip.height;
  if (canvas.width !== side) canvas.width = canvas.height = side;
  canvas.getContext("2d").drawImage(strip, place * side, 0, side, side, 0, 0, side, side);
}
function blank(canvas) { canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height); }

/* ---- a tile ---- */

function newTile() {
  const tile = make("article", { className: "tile", tabIndex: -1 });
  tile.setAttribute("role", "listitem");
  const before = make("canvas"), after = make("canvas");
  for (const canvas of [before, after]) canvas.setAttribute("aria-hidden", "true");
  const pair = make("div", { className: "pair" }, before, after, make("span", { className: "tag", textContent: "before" }), make("span", { className: "seal" }));
  const name = make("b"), dot = make("span", { className: "dot" }), values = make("span", { className: "values" });
  const no = make("button", { className: "no", textContent: "✕", ariaLabel: "Reject", title: "Reject (R)" });
  const yes = make("button", { className: "yes", textContent: "✓", ariaLabel: "Accept", title: "Accept (A)" });
  const range = make("input", { type: "range", min: 0, step: 1, ariaLabel: "Strength" }), output = make("output");
  tile.append(pair, make("div", { className: "line" }, name, dot, values), make("div", { className: "acts" }, no, range, output, yes));
  Object.assign(tile, { before, after, pair, name, dot, values, no, yes, range, output });
  const hover = (back) => () => { pair.classList.toggle("back", back); if (tile.strip) paint(after, tile.strip, back ? 0 : shownAt(tile.row) + 1); };
  after.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") hover(true)(); });
  after.addEventListener("pointerleave", hover(false));
  tile.hover = hover;
  pair.addEventListener("click", () => { setCursor(tile.position, false); openOne(); });
  tile.addEventListener("focusin", () => { if (cursor !== tile.position) setCursor(tile.position, false); });
  no.addEventListener("click", () => tile.row && decide(tile.row, stateOf(tile.row) === "rejected" ? null : "rejected"));
  yes.addEventListener("click", () => tile.row && decide(tile.row, stateOf(tile.row) === "accepted" ? null : "accepted"));
  range.addEventListener("input", () => tile.row && setStrength(tile.row, Number(range.value)));
  return tile;
}

function fill(tile) {
  const id = order[tile.position], row = rows.get(id), focused = tile.position === cursor;
  if (!tile.isConnected) $("space").append(tile);
  tile.tabIndex = focused ? 0 : -1;
  for (const control of [tile.no, tile.range, tile.yes]) control.tabIndex = focused ? 0 : -1;
  tile.setAttribute("aria-posinset", tile.position + 1);
  tile.setAttribute("aria-setsize", order.length);
  if (tile.row?.case !== id) { tile.waits?.abort(); tile.waits = null; tile.strip = null; blank(tile.before); blank(tile.after); tile.pair.classList.remove("back"); }
  tile.row = row ?? null;
  tile.dataset.state = row ? stateOf(row) : "";
  if (!row) { tile.name.textContent = ""; tile.values.textContent = ""; tile.dot.className = "dot"; tile.output.textContent = ""; return; }
  const k = shownAt(row), state = stateOf(row), success = measure(row, "success");
  tile.name.textContent = titleOf(row);
  tile.dot.className = `dot ${success === null ? "" : success > 0.5 ? "yes" : "no"}`;
  tile.dot.hidden = success === null;
  tile.dot.title = success === null ? "" : success > 0.5 ? "target reached" : "target not reached";
  tile.values.replaceChildren(...shownValues().filter((name) => measure(row, name) !== null).map((name) => make("span", { textContent: `${name === "probability" ? "p" : name} ${number(measure(row, name))}`, title: facts.measures[name].meaning })));
  tile.range.max = facts.strengths.length - 1; tile.range.value = k;
  tile.range.setAttribute("aria-valuetext", strengthOf(k));
  tile.output.textContent = strengthOf(k);
  for (const [button, name] of [[tile.yes, "accepted"], [tile.no, "rejected"]]) button.setAttribute("aria-pressed", state === name);
  const reached = success === null ? "" : success > 0.5 ? ", target reached" : ", target not reached";
  tile.setAttribute("aria-label", `${titleOf(row)} of ${row.source || row.item} at strength ${strengthOf(k)}${reached}, ${state}`);
  if (tile.strip) { paint(tile.after, tile.strip, tile.pair.classList.contains("back") ? 0 : k + 1); return; }
  if (tile.waits || flying) return;
  tile.waits = new AbortController();
  stripOf(id, tile.waits.signal).then((strip) => {
    if (order[tile.position] !== id || !tile.row) return;
    tile.strip = strip; tile.waits = null;
    paint(tile.before, strip, 0); paint(tile.after, strip, shownAt(tile.row) + 1);
  }).catch((error) => {
    if (error instanceof Changed) start();
    else if (tile.row?.case === id) tile.waits = null; // asked for again at the next scroll
  });
}
function shownValues() {
  const first = wanted.sort in (facts.measures ?? {}) && !["success", "clean", "probability"].includes(wanted.sort) ? [wanted.sort] : [];
  const names = [...(first.length || wanted.size !== "s" ? first : []), ...(first.length && geo.w < 300 ? [] : ["probability"]), ...(geo.w > 380 ? ["drift", "identity"] : [])];
  return [...new Set(names)].filter((name) => name in facts.measures);
}
function refresh(id) {
  for (const tile of tiles.values()) if (order[tile.position] === id) fill(tile);
  if ($("one").open && order[cursor] === id) drawOne();
}

function setCursor(position, focus = true) {
  const before = cursor;
  cursor = Math.max(0, Math.min(order.length - 1, position));
  if (focus) reveal(cursor);
  for (const at of [before, cursor]) { const tile = tiles.get(at); if (tile) fill(tile); }
  if (focus && !$("one").open) (tiles.get(cursor) ?? $("grid")).focus({ preventScroll: true });
}
function reveal(position) {
  const grid = $("grid"), step = geo.h + GAP, y = PAD + Math.floor(position / geo.cols) * step, view = grid.clientHeight;
  const top = grid.scrollTop + offset();
  const goal = y < top + PAD ? y - PAD : y + geo.h > top + view - PAD ? y + geo.h + PAD - view : null;
  if (goal !== null) {
    const share = (geo.height - view) / (geo.total - view); // the inverse of `offset`
    grid.scrollTop = geo.total > geo.height ? goal * share : goal;
  }
  render();
}

/* ---- deciding ---- */

function setStrength(row, k) {
  k = Math.max(0, Math.min(facts.strengths.length - 1, k));
  if (k === shownAt(row)) return;
  const state = stateOf(row);
  chosen.set(row.case, k);
  if (state === "open") refresh(row.case); else decide(row, state);
}
function decide(row, verdict, remember = true) {
  const k = shownAt(row);
  if (remember) undo.push([{ id: row.case, state: stateOf(row), at: row.at }]);
  if (verdict === null) chosen.set(row.case, k); // it goes on being shown at its strength
  pending.set(row.case, { case: row.case, strength: k, verdict });
  refresh(row.case);
  send();
}
async function send() {
  if (sending || !pending.size) return;
  sending = true;
  $("saved").textContent = "Saving…";
  const changes = [...pending.values()].slice(0, 2000);
  try {
    const state = await json("api/verdicts", post({ changes }));
    for (const change of changes) {
      const row = rows.get(change.case);
      if (row) { row.state = change.verdict ?? "open"; row.at = change.verdict ? change.strength : -1; }
      if (change.verdict) chosen.delete(change.case);
      if (pending.get(change.case) === change) pending.delete(change.case);
    }
    tell(state);
    $("saved").textContent = pending.size ? "Saving…" : "Saved";
    sending = false;
    send();
  } catch (error) {
    sending = false;
    $("saved").textContent = "Not saved";
    if (error instanceof Changed) { pending.clear(); note("A run changed the edits; the last decision was not saved."); start(); }
    else setTimeout(send, 3000);
  }
}
const post = (body) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ generation: facts.generation, mode: wanted.mode, ...body }) });
function takeBack() {
  const last = undo.pop();
  if (!last) { note("There is nothing to undo.", 2000); return; }
  for (const { id, state, at } of last) {
    const row = rows.get(id);
    if (!row) continue;
    if (at >= 0) chosen.set(id, at);
    decide(row, state === "open" ? null : state, false);
  }
  const place = order.indexOf(last[0].id);
  if (place >= 0) { setCursor(place); if ($("one").open) drawOne(); }
}
async function decideAll(verdict) {
  $("all").close();
  const ids = [...order];
  for (let start = 0; start < ids.length; start += 5000) {
    $("saved").textContent = `Saving ${Math.min(start + 5000, ids.length).toLocaleString()} of ${ids.length.toLocaleString()}…`;
    tell(await json("api/verdicts", post({ changes: ids.slice(start, start + 5000).map((id) => ({ case: id, strength: chosen.get(id) ?? null, verdict })) })));
  }
  $("saved").textContent = "Saved";
  undo.length = 0; rows.clear(); chosen.clear();
  await query({ keep: true });
}

/* ---- one pair ---- */

const current = () => rows.get(order[cursor]);
async function openOne() {
  if (!order.length) return;
  if (!$("one").open) { $("one").showModal(); $("one").focus({ preventScroll: true }); }
  await turn(0);
}
async function turn(by) {
  setCursor(cursor + by);
  const id = order[cursor];
  try {
    const ids = [...order.slice(Math.max(0, cursor - 1), cursor + 3)].filter((each) => !rows.has(each));
    if (ids.length) await fetchRows(ids);
    await stripOf(id);
  } catch (error) { if (error instanceof Changed) start(); return; }
  if (order[cursor] !== id) return;
  drawOne(); drawNear(id);
  if (cursor + 1 < order.length) stripOf(order[cursor + 1]).catch(() => {});
}
function drawOne() {
  const row = current(), strip = strips.get(order[cursor]);
  if (!row || !strip) return;
  const k = shownAt(row), state = stateOf(row);
  $("one-title").textContent = titleOf(row);
  $("one-source").textContent = `${row.source || "item"} · ${row.item}`;
  $("one-place").textContent = `${(cursor + 1).toLocaleString()} of ${order.length.toLocaleString()}`;
  $("one-before").disabled = cursor === 0; $("one-after").disabled = cursor + 1 >= order.length;
  $("one").dataset.state = state;
  $("one-accept").setAttribute("aria-pressed", state === "accepted");
  $("one-reject").setAttribute("aria-pressed", state === "rejected");
  drawStage(row, strip, k);
  $("steps").replaceChildren(...facts.strengths.map((_strength, at) => {
    const canvas = make("canvas"), p = row.measures.probability?.[at], success = row.measures.success?.[at];
    canvas.setAttribute("aria-hidden", "true");
    paint(canvas, strip, at + 1);
    const small = make("small", {}, p === undefined || p === null ? "" : `p ${number(p)}`);
    if (success !== undefined && success !== null) small.prepend(make("span", { className: `dot ${success > 0.5 ? "yes" : "no"}` }));
    const button = make("button", { type: "button", title: `Strength ${strengthOf(at)}` }, canvas, make("span", { textContent: strengthOf(at) }), small);
    button.setAttribute("aria-pressed", at === k);
    button.setAttribute("aria-label", `Strength ${strengthOf(at)}`);
    button.addEventListener("click", () => setStrength(row, at));
    return button;
  }));
  $("one-measures").replaceChildren(...Object.entries(facts.measures).flatMap(([name, about]) => {
    const value = measure(row, name), flag = name === "success" || name === "clean";
    const text = flag && value !== null ? (value > 0.5 ? "yes" : "no") : number(value, 3);
    return [make("dt", { textContent: about.title, title: about.meaning }), make("dd", { textContent: text })];
  }));
}
function drawStage(row, strip, k) {
  paint($("stage-before"), strip, 0); paint($("stage-after"), strip, k + 1);
  if (facts.exact) return;
  for (const [canvas, at] of [[$("stage-before"), "input"], [$("stage-after"), `${k}`]]) {
    const picture = new Image();
    picture.onload = () => {
      if (current() !== row || (at !== "input" && shownAt(row) !== k)) return;
      canvas.width = canvas.height = picture.naturalWidth;
      canvas.getContext("2d").drawImage(picture, 0, 0);
    };
    picture.src = `picture/${facts.generation}/${row.case}/${at}.png`;
  }
}
async function drawNear(id) {
  const found = await json(`api/near?generation=${facts.generation}&case=${id}`).catch(() => null);
  if (!found || order[cursor] !== id) return;
  const message = (text) => $("near").replaceChildren(make("p", { textContent: text }));
  if (!found.known) { message("No features are stored of these pictures: their labels came from neither CLIP nor a classifier."); return; }
  if (!found.cases.length) { message("There is no other picture with this edit."); return; }
  const lacking = found.cases.filter((each) => !rows.has(each));
  if (lacking.length) await fetchRows(lacking);
  if (order[cursor] !== id) return;
  $("near").replaceChildren(...found.cases.map((each) => {
    const row = rows.get(each), canvas = make("canvas"), button = make("button", { type: "button", title: `${row.source || row.item}, ${stateOf(row)}` }, canvas);
    button.setAttribute("aria-label", `Go to ${row.source || row.item}, ${stateOf(row)}`);
    button.dataset.state = stateOf(row);
    stripOf(each).then((strip) => paint(canvas, strip, shownAt(row) + 1)).catch(() => {});
    button.addEventListener("click", () => goTo(each));
    return button;
  }));
}
async function goTo(id) {
  let place = order.indexOf(id);
  if (place < 0) {
    Object.assign(wanted, { edits: [], states: [], ranges: {}, find: "" });
    drawFilters();
    await query();
    note("The filters were taken off: they hid that pair.", 4000);
    place = order.indexOf(id);
  }
  cursor = place;
  turn(0);
}

/* ---- tools and filters ---- */

function drawTools() {
  const fixed = !["best", "weakest"].includes(wanted.mode);
  $("mode").value = fixed ? "fixed" : wanted.mode;
  $("mode").querySelector("[value=weakest]").disabled = !("success" in facts.measures);
  $("dial").parentElement.classList.toggle("auto", !fixed);
  if (fixed) $("dial").value = wanted.mode; else $("dial").value = Math.round((facts.strengths.length - 1) * 0.67);
  $("dial-value").textContent = fixed ? strengthOf(Number(wanted.mode)) : "auto";
  const options = [["", "Edit and item"], ["strength", "Strength"], ...Object.entries(facts.measures).map(([name, about]) => [name, about.title]), ["when", "Time of the verdict"]];
  $("sort").replaceChildren(...options.map(([value, textContent]) => make("option", { value, textContent })));
  if (!options.some(([value]) => value === wanted.sort)) wanted.sort = "";
  $("sort").value = wanted.sort;
  $("direction").textContent = wanted.descending ? "↓" : "↑";
  $("direction").setAttribute("aria-label", wanted.descending ? "Largest first" : "Smallest first");
  $("direction").disabled = !wanted.sort;
  for (const button of $("sizes").children) button.setAttribute("aria-pressed", button.dataset.size === wanted.size);
}
function drawFilters() {
  const choice = (list, value, text, count) => {
    const input = make("input", { type: "checkbox", value, checked: wanted[list].includes(value) });
    input.addEventListener("change", () => {
      wanted[list] = input.checked ? [...wanted[list], value] : wanted[list].filter((name) => name !== value);
      filtered();
    });
    return make("label", {}, input, make("span", {}, text, make("small", { textContent: count })));
  };
  $("states").replaceChildren(...["open", "accepted", "rejected"].map((name) => choice("states", name, name, facts.counts[name].toLocaleString())));
  $("edits").replaceChildren(...facts.edits.map((edit) => choice("edits", edit.name, edit.name.replaceAll("_", " "), edit.num.toLocaleString())));
  const names = Object.keys(facts.measures);
  $("flags").replaceChildren(...names.filter((name) => name === "success" || name === "clean").map(flagFilter));
  $("ranges").replaceChildren(...names.filter((name) => name !== "success" && name !== "clean").map(rangeFilter));
  $("find").value = wanted.find;
  countFilters();
}
function flagFilter(name) {
  const about = facts.measures[name], box = make("div", { className: "choices" });
  for (const [text, range] of [["yes", [0.5, 1]], ["no", [0, 0.5]]]) {
    const on = wanted.ranges[name]?.[0] === range[0] && wanted.ranges[name]?.[1] === range[1];
    const input = make("input", { type: "checkbox", checked: on });
    input.addEventListener("change", () => {
      delete wanted.ranges[name];
      if (input.checked) {
        wanted.ranges[name] = range;
        for (const other of box.querySelectorAll("input")) if (other !== input) other.checked = false;
      }
      filtered();
    });
    box.append(make("label", {}, input, make("span", { textContent: text })));
  }
  return make("fieldset", {}, make("legend", { textContent: about.title, title: about.meaning }), box);
}
function rangeFilter(name) {
  const about = facts.measures[name], [low, high] = [about.low, about.high], span = high - low || 1, STEPS = 200;
  const value = (step) => low + (span * step) / STEPS, steps = (v) => Math.round(((v - low) / span) * STEPS);
  const output = make("output"), box = make("div", { className: "range", title: about.meaning });
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), most = Math.max(1, ...about.counts);
  svg.setAttribute("viewBox", "0 0 240 30"); svg.setAttribute("preserveAspectRatio", "none"); svg.setAttribute("aria-hidden", "true");
  const bars = about.counts.map((count, bin) => {
    const bar = document.createElementNS(svg.namespaceURI, "rect"), height = count ? Math.max(1.5, 29 * Math.sqrt(count / most)) : 0;
    for (const [key, number] of Object.entries({ x: bin * 10 + 0.5, y: 30 - height, width: 9, height, rx: 1 })) bar.setAttribute(key, number);
    svg.append(bar);
    return bar;
  });
  const known = wanted.ranges[name];
  const thumbs = [["smallest", known ? steps(known[0]) : 0], ["largest", known ? steps(known[1]) : STEPS]].map(([word, at]) => make("input", { type: "range", min: 0, max: STEPS, value: at, ariaLabel: `${about.title}, ${word}` }));
  const draw = () => {
    const [from, to] = thumbs.map((thumb) => Number(thumb.value)), on = from > 0 || to < STEPS;
    output.textContent = `${number(value(from))} – ${number(value(to))}`;
    box.toggleAttribute("data-on", on);
    thumbs[0].style.zIndex = from > STEPS / 2 ? 1 : 0;
    thumbs.forEach((thumb, index) => thumb.setAttribute("aria-valuetext", number(value(index ? to : from))));
    bars.forEach((bar, bin) => bar.classList.toggle("in", on && (bin + 0.5) * STEPS / 24 >= from && (bin + 0.5) * STEPS / 24 <= to));
    return { from, to, on };
  };
  thumbs.forEach((thumb, index) => {
    thumb.addEventListener("input", () => {
      if (Number(thumbs[0].value) > Number(thumbs[1].value)) thumbs[index].value = thumbs[1 - index].value;
      draw();
    });
    thumb.addEventListener("change", () => {
      const { from, to, on } = draw();
      delete wanted.ranges[name];
      if (on) wanted.ranges[name] = [from > 0 ? value(from) : low - 1e-3, to < STEPS ? value(to) : high + 1e-3];
      filtered();
    });
  });
  draw();
  box.append(make("div", { className: "title" }, about.title, output), svg, make("div", { className: "two" }, ...thumbs));
  return box;
}
function countFilters() {
  const num = wanted.edits.length + wanted.states.length + Object.keys(wanted.ranges).length + (wanted.find ? 1 : 0);
  $("num-filters").textContent = num; $("num-filters").hidden = !num;
  $("reset").disabled = !num;
}
function filtered() { countFilters(); requery(); }
function showFilters(open) {
  $("filters").classList.toggle("open", open);
  $("open-filters").setAttribute("aria-expanded", open);
  (open ? $("find") : $("open-filters")).focus();
}

/* ---- events ---- */

$("grid").addEventListener("scroll", () => { frame ||= requestAnimationFrame(render); }, { passive: true });
new ResizeObserver(() => { if (facts) { const top = Math.floor(($("grid").scrollTop + offset()) / (geo.h + GAP)) * geo.cols; layout(); if (top) reveal(Math.min(order.length - 1, top)); } }).observe($("grid"));
$("mode").addEventListener("change", () => { wanted.mode = $("mode").value === "fixed" ? $("dial").value : $("mode").value; chosen.clear(); drawTools(); requery({ keep: true }); });
$("dial").addEventListener("input", () => { wanted.mode = $("dial").value; chosen.clear(); drawTools(); for (const tile of tiles.values()) fill(tile); });
$("dial").addEventListener("change", () => requery({ keep: true }));
$("sort").addEventListener("change", () => { wanted.sort = $("sort").value; wanted.descending = !["", "drift"].includes(wanted.sort); drawTools(); requery(); });
$("direction").addEventListener("click", () => { wanted.descending = !wanted.descending; drawTools(); requery(); });
$("sizes").addEventListener("click", (event) => { if (event.target.dataset.size) { wanted.size = event.target.dataset.size; drawTools(); requery({ keep: true }); } });
let findTimer;
$("find").addEventListener("input", () => { clearTimeout(findTimer); findTimer = setTimeout(() => { wanted.find = $("find").value.trim(); filtered(); }, 250); });
$("filter-form").addEventListener("submit", (event) => event.preventDefault());
$("reset").addEventListener("click", () => { Object.assign(wanted, { edits: [], states: [], ranges: {}, find: "" }); drawFilters(); requery(); });
$("open-filters").addEventListener("click", () => showFilters(!$("filters").classList.contains("open")));
$("close-filters").addEventListener("click", () => showFilters(false));
$("open-keys").addEventListener("click", () => $("keys").showModal());
$("open-all").addEventListener("click", () => { $("all-title").textContent = `Decide on ${order.length.toLocaleString()} pairs`; $("all").showModal(); });
for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
for (const button of document.querySelectorAll("[data-all]")) button.addEventListener("click", () => quiet(decideAll(button.dataset.all || null)));
for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
$("divider").addEventListener("input", () => $("stage").style.setProperty("--x", `${$("divider").value}%`));
$("close-one").addEventListener("click", () => $("one").close());
$("one").addEventListener("close", () => setCursor(cursor));
$("one-before").addEventListener("click", () => turn(-1));
$("one-after").addEventListener("click", () => turn(1));
for (const [id, verdict] of [["one-accept", "accepted"], ["one-reject", "rejected"]]) {
  $(id).addEventListener("click", () => {
    const row = current();
    if (row && stateOf(row) === verdict) decide(row, null);
    else if (row) { decide(row, verdict); turn(1); }
  });
}

function back(on) {
  $("stage").classList.toggle("back", on);
  const tile = tiles.get(cursor);
  if (tile?.row) tile.hover(on)();
}
function go(by) { if ($("one").open) turn(by); else setCursor(cursor + by); }
const KEYS = {
  a: (row) => { decide(row, "accepted"); go(1); },
  r: (row) => { decide(row, "rejected"); go(1); },
  u: (row) => decide(row, null),
  z: () => takeBack(),
  "[": (row) => setStrength(row, shownAt(row) - 1),
  "]": (row) => setStrength(row, shownAt(row) + 1),
  b: () => back(true),
  ArrowLeft: () => go(-1),
  ArrowRight: () => go(1),
  ArrowUp: () => go($("one").open ? -1 : -geo.cols),
  ArrowDown: () => go($("one").open ? 1 : geo.cols),
  PageUp: () => go(-geo.cols * Math.max(1, Math.floor($("grid").clientHeight / (geo.h + GAP)))),
  PageDown: () => go(geo.cols * Math.max(1, Math.floor($("grid").clientHeight / (geo.h + GAP)))),
  Home: () => go(-order.length),
  End: () => go(order.length),
  Enter: () => ($("one").open ? $("one").close() : openOne()),
  "/": () => { if (!$("one").open) { if (matchMedia("(max-width: 1000px)").matches) showFilters(true); $("find").focus(); } },
  "?": () => $("keys").showModal(),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !facts) return;
  const at = event.target, key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "Escape" && at.closest("#filters")) { if ($("filters").classList.contains("open")) showFilters(false); else setCursor(cursor); return; }
  if ($("keys").open || $("all").open || at.matches("input[type=search], select")) return;
  if (at.matches("input[type=range]") && event.key.length > 1 && key !== "Enter" && !(at.id === "divider" && /Up|Down|Page/.test(key))) return; // it moves by itself
  if (at.matches("button, .choices input") && (key === "Enter" || key === " ")) return;
  if (at.closest("#filters, .tools, .bar") && /Arrow|Home|End|Page/.test(key)) return;
  const row = current(), act = KEYS[key] ?? (/^[1-9]$/.test(key) ? () => row && setStrength(row, Number(key) - 1) : null);
  if (!act || ("aru[]".includes(key) && !row)) return;
  event.preventDefault();
  act(row);
});
document.addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "b") back(false); });
addEventListener("beforeunload", (event) => { if (pending.size) event.preventDefault(); });

async function refreshState() {
  const state = await json("api/state");
  if (state.generation !== facts.generation) { note("A run has changed the edits; this is how they are now.", 5000); await start(); return; }
  const others = state.stamp !== stamp && !pending.size && !sending;
  if (others) { rows.clear(); tell(state); render(); for (const tile of tiles.values()) tile.row = null; }
}
setInterval(() => { if (facts && !document.hidden && !sending && !pending.size) quiet(refreshState()); }, 5000);

const kind = (value) => (Array.isArray(value) ? "list" : typeof value);
try {
  const before = JSON.parse(decodeURIComponent(location.hash.slice(1)));
  for (const name of Object.keys(wanted)) if (kind(before[name]) === kind(wanted[name])) wanted[name] = before[name];
} catch { /* no hash, or none of this page's */ }
quiet(start());
