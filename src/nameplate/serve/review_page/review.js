// The review of an audit's findings. Each step of the cursor is one photo of one finding.

const $ = id => document.getElementById(id);
const said = await (await fetch("findings")).json();
const photos = said.photos;
let steps = [];
let at = 0;

const WORDS = {keep: "kept", exclude: "excluded", undecided: "undecided"};

function state(photo) {
  if (photo.choice === "relabel") return `relabelled: ${photo.new_label}`;
  if (photo.choice !== "undecided") return WORDS[photo.choice];
  return photo.listed ? "undecided; on the list to exclude" : "undecided; stays";
}

function choose(kind) {
  const found = said.findings.filter(each => !kind || each.kind === kind);
  steps = found.flatMap(finding => finding.photos.map(photo => ({finding, photo})));
  const open = steps.findIndex(step => photos[step.photo].choice === "undecided");
  at = Math.max(0, open);
  show();
}

function show() {
  $("failed").hidden = true;
  $("progress").textContent = progress();
  document.querySelector("main").hidden = !steps.length;
  if (!steps.length) return;
  const {finding, photo} = steps[at];
  const detail = document.createElement("small");
  detail.textContent = ` ${finding.title}, score ${finding.score}`;
  $("what").replaceChildren(finding.detail, detail);
  $("photos").replaceChildren(...finding.photos.map(number => figure(number, number === photo)));
  $("suggest").hidden = !finding.suggested;
  $("suggest").querySelector("span").textContent = finding.suggested;
  $("label").value = photos[photo].new_label;
  $("previous").disabled = at === 0;
  $("next").disabled = at === steps.length - 1;
}

function progress() {
  const mine = new Set(steps.map(step => step.photo));
  const decided = [...mine].filter(number => photos[number].choice !== "undecided").length;
  return steps.length ? `${at + 1} of ${steps.length} · ${decided} of ${mine.size} photos decided` : "Nothing was found.";
}

function figure(number, chosen) {
  const photo = photos[number];
  const box = document.createElement("figure");
  box.classList.toggle("chosen", chosen);
  const picture = document.createElement("img");
  picture.src = `photo/${number}`;
  picture.alt = photo.path;
  picture.onerror = () => { picture.alt = `${photo.path} cannot be shown`; };
  const label = document.createElement("b");
  label.textContent = photo.label;
  const mark = document.createElement("span");
  mark.className = `state ${photo.choice}`;
  mark.textContent = state(photo);
  const name = document.createElement("span");
  name.textContent = ` · ${photo.path.split("/").pop()}`;
  const caption = document.createElement("figcaption");
  caption.append(label, mark, name);
  box.append(picture, caption);
  box.onclick = () => {
    const place = steps.findIndex(step => step.finding === steps[at].finding && step.photo === number);
    if (place >= 0) { at = place; show(); }
  };
  return box;
}

async function decide(choice, label = "") {
  const {photo} = steps[at];
  const answer = await fetch("decide", {method: "POST", body: JSON.stringify({photo, choice, label})}).catch(() => null);
  if (!answer?.ok) {
    $("failed").textContent = answer ? await answer.text() : "Nothing was written: the review has been stopped.";
    $("failed").hidden = false;
    return;
  }
  Object.assign(photos[photo], {choice, new_label: label});
  if (choice !== "undecided" && at < steps.length - 1) at += 1;
  show();
}

function move(by) {
  at = Math.min(Math.max(at + by, 0), steps.length - 1);
  show();
}

function relabel(event) {
  event.preventDefault();
  const label = $("label").value.trim();
  if (!said.nameplates.includes(label)) {
    $("failed").textContent = `'${label}' is no nameplate of the data.`;
    $("failed").hidden = false;
    return;
  }
  $("label").blur();
  decide("relabel", label);
}

const KEYS = {
  k: () => decide("keep"),
  x: () => decide("exclude"),
  u: () => decide("undecided"),
  s: () => steps[at].finding.suggested && decide("relabel", steps[at].finding.suggested),
  r: () => { $("label").focus(); $("label").select(); },
  ArrowRight: () => move(1),
  ArrowLeft: () => move(-1),
};

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !steps.length) return;
  if (event.target === $("label")) {
    if (event.key === "Escape") $("label").blur();
    return;
  }
  if (event.target === $("kind")) return;
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action) { event.preventDefault(); action(); }
});

$("keep").onclick = KEYS.k;
$("exclude").onclick = KEYS.x;
$("undo").onclick = KEYS.u;
$("suggest").onclick = KEYS.s;
$("previous").onclick = KEYS.ArrowLeft;
$("next").onclick = KEYS.ArrowRight;
$("relabel").onsubmit = relabel;
$("nameplates").append(...said.nameplates.map(name => new Option(name, name)));
$("files").textContent = `Written at once to ${said.files.join(" and ")}. Stop with Ctrl-C in the terminal.`;
const kinds = [...new Map(said.findings.map(each => [each.kind, each.title]))];
$("kind").append(new Option("all findings", ""), ...kinds.map(([kind, title]) => new Option(title, kind)));
$("kind").onchange = () => { choose($("kind").value); $("kind").blur(); };
choose("");
