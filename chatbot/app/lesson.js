// The page "How it works": a sentence on its way through the model, one step at a time. After
// elements.js. All numbers come from lesson.py; this draws them, and asks again when one is changed.
const words = props.words, text = words.LESSON, parts = words.LESSON_PARTS;
const models = [...props.chats, ...props.translators];
let asked = { model: models[0], text: "", reply: null, change: null }, answered = asked;
let data = null, frames = [], each = [], at = 0, picked = null;
let busy = false, again = false, fresh = true;

const fill = (pattern, values) => pattern.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
const piece = (word) => word.trim() || "␣";
const signed = (value) => value.toFixed(2).replace("-0.00", "0.00").replace("-", "−");
const share = (p) => (p > 0.0995 ? `${(100 * p).toFixed(0)} %` : p < 0.0005 ? "<0.1 %" : `${(100 * p).toFixed(1)} %`);
const now = () => frames[at] ?? { part: "words", step: null };
const step = (changed = true) => ((changed && data.changed[now().step]) || data.steps[now().step]);
const said = (place) => piece(place < 0 ? "<go>" : data.reply[place].word);
const has = (...names) => names.includes(now().part);
const strip = (values, label) => make("span", { class: "strip", ...(label ? { role: "img", "aria-label": `${label}: ${values.map(signed).join(" ")}` } : { "aria-hidden": "true" }) },
  ...values.map((v) => make("i", { class: v < 0 ? "minus" : "", style: `--size: ${Math.min(1, Math.sqrt(Math.abs(v)))}`, title: signed(v) }, make("b", {}, signed(v)))));
const vector = (values, label, all) => make("div", { class: "vector" }, make("span", {}, label), strip(values, label),
  make("small", {}, fill(text.first, { all })));
const line = (said, kind = "") => make("p", { class: kind }, said);
const bar = (label, value, before, chosen, top) => make("li", { class: chosen ? "chosen" : "" }, make("span", { class: "word" }, label),
  make("span", { class: "track", "aria-hidden": "true" }, make("i", { style: `--size: ${value / top}` }), before == null ? "" : make("i", { class: "was", style: `--size: ${before / top}` })),
  make("span", { class: "figure" }, share(value)), before == null ? "" : make("small", {}, fill(text.was, { p: share(before) })));

// What is asked: sentence, model, and the reply that the model is led along.
const field = (label, more) => make("input", { type: "text", "aria-label": label, maxlength: props.most, autocomplete: "off", ...more });
const sentence = field(text.sentence, { placeholder: text.sentence }), given = field(text.given_hint, { placeholder: text.given_hint });
const choice = (value, label) => {
  const input = make("input", { type: "radio", name: "follow", value, onchange: () => start() });
  return [input, make("label", {}, input, label)];
};
const [own, ownLabel] = choice("own", text.own), [led, ledLabel] = choice("given", text.given);
const model = make("select", { "aria-label": text.model, onchange: () => start() },
  ...models.map((name) => make("option", { value: name }, name)));
const note = make("p", { class: "note" }), problem = make("p", { class: "problem", role: "alert" });
given.addEventListener("input", () => (led.checked = true));
const start = (found = "") => {
  note.textContent = found;
  fresh = true;
  load({ text: sentence.value, reply: (led.checked && given.value) || null, change: null });
};
const example = (names) => ([read, reply, remark]) => textButton(read, () => {
  if (!names.includes(model.value)) model.value = names[0];
  [sentence.value, given.value, led.checked, own.checked] = [read, reply ?? "", !!reply, !reply];
  start(remark);
}, "example");
const form = make("form", { onsubmit: (event) => (event.preventDefault(), start()) },
  make("div", { class: "row" }, sentence, make("button", { class: "text primary" }, text.start), models.length > 1 ? model : ""),
  make("fieldset", { class: "row" }, make("legend", {}, text.follow), ownLabel, ledLabel, given),
  make("div", { class: "row examples" }, make("span", {}, text.examples), ...words.LESSON_EXAMPLES.map(example(props.chats)),
    ...(props.translators.length ? words.LESSON_TRANSLATIONS.map(example(props.translators)) : [])),
  props.translators.length ? "" : make("p", { class: "note" }, words.LESSON_NO_TRANSLATOR), note, problem);

// The picture: what is read above, what is written below, vectors between them, lines for what flows.
const source = make("ol", { class: "tiles", "aria-label": text.reads }), reply = make("ol", { class: "tiles", "aria-label": text.writes });
const boxes = {}, lines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
lines.setAttribute("aria-hidden", "true");
const between = make("div", { class: "between" }), path = make("ol", { class: "parts", "aria-label": text.parts });
const board = make("section", { class: "board" }, make("p", { class: "label", "aria-hidden": "true" }, text.reads), source, between, make("p", { class: "label", "aria-hidden": "true" }, text.writes), reply, lines);
const title = make("h2", {}), about = make("p", { class: "about" }), numbers = make("div", { class: "numbers" });
const explained = make("div", { class: "explained", "aria-live": "polite" }, title, about);

const tile = (word, action, ...more) =>
  make("li", {}, make("button", { type: "button", class: "tile", onclick: action }, make("span", { class: "word" }, piece(word)), make("small", { class: "figure" }), ...more));
const pick = (place) => {
  picked = picked === place ? null : place;
  paint();
};
const build = () => {
  source.replaceChildren(...data.source.map(({ word }, place) => tile(word, () => pick(place), strip(data.states[place]))));
  reply.replaceChildren(tile("<go>", () => go("words")), ...data.reply.map(({ word }, place) => tile(word, () => go(now().step == null ? "word" : now().part, place))));
  const looks = data.facts.attention !== "none", asks = ["scores", "softmax", "context"];
  each = !looks ? ["decoder", "word"] : data.facts.attention === "additive" ? [...asks, "decoder", "word"] : ["decoder", ...asks, "word"];
  frames = [...["words", "encoder", "fixed"].map((part) => ({ part, step: null })),
    ...data.reply.flatMap((_, place) => each.map((part) => ({ part, step: place }))), { part: "whole", step: null }];
  path.replaceChildren(...["words", "encoder", "fixed", ...each, "whole"].map((part) =>
    make("li", {}, make("button", { type: "button", "data-part": part, onclick: () => go(part) }, parts[part][0]))));
  for (const name of ["fixed", "decoder", "context"]) boxes[name] = make("div", { class: `box ${name}` });
  between.replaceChildren(...Object.values(boxes).slice(0, looks ? 3 : 2));
};
const go = (part, place = now().step ?? 0) => arrive(frames.findIndex((frame) => frame.part === part && (frame.step ?? place) === place));
const move = (by) => arrive(Math.min(frames.length - 1, at + by));
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const arrive = (place) => {
  at = Math.max(0, place);
  paint();
  if (calm || !has("encoder")) return;
  source.querySelectorAll(".strip").forEach((one, spot) => one.animate({ opacity: [0, 1] }, { duration: 300, delay: 120 * spot, fill: "backwards" }));
};

const best = (values) => values.reduce((found, value, place) => ((value ?? -Infinity) > (values[found] ?? -Infinity) ? place : found), 0);
// The numbers of a step, under the picture.
const shown = {
  words: () => [],
  encoder: () => {
    const place = picked ?? data.source.length - 1, { word } = data.source[place];
    return [vector(data.embeddings[place], fill(text.embedding, { word }), data.facts.embedding_size), vector(data.states[place], fill(text.state, { word }), data.facts.memory_size)];
  },
  fixed: () => [...data.fixed.flatMap((state, layer) => state.map((values, kind) => vector(values,
    (kind ? text.cell : text.hidden) + (data.fixed.length > 1 ? fill(text.layer, { layer: layer + 1 }) : ""), data.facts.hidden_size))),
  data.facts.bridge === "zero" ? line(text.zero) : "", data.facts.attention === "none" ? line(text.none, "lacks") : ""],
  decoder: () => [vector(step().state, text.decoder_state, data.facts.hidden_size)],
  scores: () => [line(words.LESSON_FORMULAS[data.facts.attention], "formula"), line(data.facts.attention === "additive" ? text.before : text.after),
    step().scores.includes(null) ? line(text.window) : ""],
  softmax: () => {
    const { scores, weights } = step(), top = best(scores), sum = scores.reduce((all, s) => all + (s == null ? 0 : Math.exp(s - scores[top])), 0) * Math.exp(scores[top]);
    return [line(`${piece(data.source[top].word)}: e^${signed(scores[top])} / ${sum.toPrecision(3)} = ${(Math.exp(scores[top]) / sum).toFixed(2)}`, "formula"),
      data.changed.length ? line(fill(text.now, { weight: weights[top].toFixed(2) }), "lacks") : ""];
  },
  context: () => {
    const { weights, context } = step(), order = weights.map((_, place) => place).sort((a, b) => weights[b] - weights[a]).slice(0, 3);
    const spot = best(context.map(Math.abs)), terms = order.map((place) => `${weights[place].toFixed(2)} · ${signed(data.states[place][spot])} (${piece(data.source[place].word)})`);
    return [vector(context, parts.context[0], data.facts.memory_size), line(fill(text.sum, { at: spot + 1, terms: terms.join(" + "), sum: signed(context[spot]) }), "formula")];
  },
  word: () => {
    const { likeliest, gate } = step(), before = data.changed.length ? step(false).likeliest : [], top = Math.max(...[...likeliest, ...before].map((one) => one[1]));
    return [make("ul", { class: "bars" }, ...likeliest.map(([word, p, chosen], place) => bar(piece(word), p, before[place]?.[1], chosen, top))),
      data.facts.copy ? line(fill(text.copying, { gate: share(gate) })) : ""];
  },
  whole: () => {
    const steps = data.changed.length ? data.changed : data.steps, rows = steps[0].weights ? steps : [];
    const cell = (weight) => make("td", { style: `--size: ${weight}` }, weight < 0.095 ? "" : weight.toFixed(1).replace("0.", "."));
    const head = make("tr", {}, make("td", {}), ...data.source.map(({ word }) => make("th", { scope: "col" }, make("span", {}, piece(word)))));
    const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows.map(({ weights }, place) => make("tr", {}, make("th", { scope: "row" }, said(place)), ...weights.map(cell)))));
    return [rows.length ? make("div", { class: "heat", tabindex: "0", role: "region", "aria-label": parts.whole[0] }, table) : line(text.none, "lacks")];
  },
};

// What may be changed: all attention off, or the weight of a picked piece at this step.
const off = make("input", { type: "checkbox", onchange: () => alter(off.checked ? { off: true } : null) });
const slider = make("input", { type: "range", min: 0, max: 1, step: 0.01, oninput: () => {
  picked = picked ?? best(data.steps[now().step].weights);
  alter({ step: now().step, position: picked, weight: Number(slider.value) });
} });
const sliderLabel = make("span", {}), sliderValue = make("output", { class: "figure" }), changedNote = make("p", {});
const undo = textButton(text.undo, () => alter(null));
const tryOut = make("section", { class: "try" }, make("h3", {}, text.try), make("label", { class: "off" }, off, text.off),
  make("label", { class: "weight" }, sliderLabel, slider, sliderValue), changedNote, undo);
const speaks = make("p", { class: "speaks" });
const alter = (change) => load({ change });

const paint = () => {
  if (!data) return;
  const { part, step: place } = now(), facts = data.facts, numbersOf = place == null ? null : step();
  title.textContent = parts[part][0];
  const { rank } = numbersOf ?? {}, chosen = rank && (rank === 1 ? text.chose : fill(text.forced, { word: said(place), rank }));
  about.textContent = fill(parts[part][1], { ...facts, both: facts.bidirectional ? text.both : "", input: place == null ? "" : said(place - 1), chosen });
  numbers.replaceChildren(...shown[part]());
  for (const button of path.querySelectorAll("button")) button.dataset.part === part ? button.setAttribute("aria-current", "step") : button.removeAttribute("aria-current");
  const focus = picked ?? (part === "encoder" ? data.source.length - 1 : null);
  [...source.querySelectorAll("button")].forEach((button, spot) => {
    const weight = numbersOf?.weights && has("softmax", "context", "word") ? numbersOf.weights[spot] : null, score = has("scores") ? numbersOf.scores[spot] : undefined;
    button.querySelector(".figure").textContent = has("words") ? data.source[spot].id : weight != null ? weight.toFixed(2) : score != null ? signed(score) : "";
    button.style.setProperty("--size", weight ?? 0);
    button.setAttribute("aria-pressed", spot === focus);
    button.classList.toggle("unseen-here", numbersOf?.scores?.[spot] === null);
  });
  [...reply.querySelectorAll("button")].slice(1).forEach((button, spot) => {
    const known = asked.reply || has("whole") || (place != null && (spot < place || (spot === place && has("word"))));
    button.querySelector(".word").textContent = known ? said(spot) : "?";
    const { likeliest } = (data.changed[spot] ?? data.steps[spot]);
    button.querySelector(".figure").textContent = known && (has("whole") || spot < place || has("word") && spot === place) ? share(likeliest.find((one) => one[2])[1]) : "";
    button.classList.toggle("current", spot === place);
    button.classList.toggle("later", !has("whole") && (place == null || spot > place));
  });
  const fixed = at > 1 ? data.fixed[data.fixed.length - 1][0] : null, come = (name) => each.indexOf(part) >= each.indexOf(name);
  const before = place ? (data.changed[place - 1] ?? data.steps[place - 1]).state : fixed; // what asks in Bahdanau's way
  const values = { fixed, decoder: place == null ? null : come("decoder") ? numbersOf.state : before, context: place != null && come("context") ? numbersOf.context : null };
  for (const [name, box] of Object.entries(boxes)) {
    box.replaceChildren(make("span", {}, parts[name][0]), values[name] ? strip(values[name], parts[name][0]) : strip(Array(8).fill(0)));
    box.classList.toggle("lit", part === name);
  }
  board.dataset.part = part;
  offer();
  draw();
};
const offer = () => {
  const { step: place } = now(), looks = data.facts.attention !== "none", change = asked.change;
  back.disabled = at === 0;
  next.disabled = at === frames.length - 1;
  count.textContent = fill(text.step, { at: at + 1, all: frames.length });
  tryOut.hidden = !looks;
  off.checked = !!change?.off;
  const spot = picked ?? (place == null ? 0 : best(data.steps[place].weights ?? [0])), can = looks && place != null && !change?.off && data.steps[place].scores[spot] != null;
  slider.disabled = !can;
  sliderLabel.textContent = can ? fill(text.weight, { word: piece(data.source[spot].word), said: asked.reply || has("word") ? said(place) : "?" }) : text.weight_hint;
  if (document.activeElement !== slider) slider.value = can ? step().weights[spot] : 0;
  sliderValue.textContent = can ? Number(slider.value).toFixed(2) : "";
  undo.hidden = !change;
  changedNote.textContent = change?.off ? text.off_said : change ? fill(text.weight_said, { word: said(change.step) }) : "";
  const quote = (said) => said || text.nothing;
  speaks.hidden = !change && !asked.reply && !has("whole");
  speaks.replaceChildren(fill(text.says, { own: quote(data.own) }), ...(change ? [make("br", {}), fill(text.says_changed, { own: quote(data.own_changed) })] : []));
};

// Lines for what flows at this step, as strong as its weight.
const middle = (node, edge) => {
  const box = node.getBoundingClientRect(), from = board.getBoundingClientRect();
  return [box.left + box.width / 2 - from.left, (edge === "top" ? box.top : box.bottom) - from.top];
};
const curve = (from, to, weight = 0.35) => {
  const [x1, y1] = middle(...from), [x2, y2] = middle(...to), half = (y1 + y2) / 2;
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", "path");
  drawn.setAttribute("d", `M${x1} ${y1}C${x1} ${half} ${x2} ${half} ${x2} ${y2}`);
  drawn.setAttribute("style", `--size: ${weight}`);
  return drawn;
};
const draw = () => {
  if (!data) return;
  const { part, step: place } = now(), tiles = [...source.querySelectorAll("button")], below = [...reply.querySelectorAll("button")];
  const weights = place == null ? null : step().weights, top = (name) => [boxes[name], "top"], bottom = (name) => [boxes[name], "bottom"];
  const from = {
    fixed: () => [curve([tiles[tiles.length - 1], "bottom"], top("fixed"))],
    decoder: () => [curve([below[place], "top"], bottom("decoder")), ...(data.facts.attention === "additive" ? [curve(bottom("context"), bottom("decoder"))] : [])],
    scores: () => tiles.flatMap((one, spot) => (step().scores[spot] == null ? [] : [curve(top("decoder"), [one, "bottom"], 0.1)])),
    softmax: () => tiles.map((one, spot) => curve(top("decoder"), [one, "bottom"], weights[spot])),
    context: () => tiles.map((one, spot) => curve([one, "bottom"], top("context"), weights[spot])),
    word: () => (weights ? ["decoder", "context"] : ["decoder"]).map((name) => curve(bottom(name), [below[place + 1], "top"])),
  }[part];
  lines.replaceChildren(...(from ? from() : []));
};

const back = textButton(text.back, () => move(-1)), next = textButton(text.next, () => move(1), "primary");
const count = make("span", { class: "figure" }), root = make("div", { class: "lesson" });
const screen = textButton(text.screen, () => (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen()));
const steps = make("div", { class: "steps", role: "group", "aria-label": text.keys, title: text.keys }, back, count, next, screen);
const side = make("section", { class: "side" }, explained, numbers, tryOut, speaks);
const lesson = make("div", { class: "shown", hidden: true }, path, board, side, steps);
root.append(make("h1", {}, words.HOW_IT_WORKS), make("p", { class: "note" }, text.about), form, lesson);
element.replaceChildren(root);

const load = async (changes = {}) => {
  asked = { ...asked, ...changes, model: model.value };
  again = busy; // one call at a time, and then the newest
  if (busy) return;
  busy = true;
  const found = await server.lesson(asked).catch(() => ({ error: words.UNREACHABLE }));
  busy = false;
  if (again) return load();
  problem.textContent = found.error ?? "";
  if (found.error) [asked, model.value, fresh] = [answered, answered.model, false]; // what is shown stays
  if (found.error) return paint();
  [data, answered, lesson.hidden] = [found, asked, false];
  if (fresh) {
    [picked, at, fresh] = [null, 0, false];
    build();
  }
  paint();
};
new ResizeObserver(() => draw()).observe(board);
document.addEventListener("keydown", (event) => {
  if (!data || event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input:not([type=checkbox]), textarea, select, .heat, dialog")) return;
  const to = { ArrowRight: 1, ArrowLeft: -1, Home: -frames.length }[event.key];
  if (!to) return;
  event.preventDefault();
  move(to);
});
example(props.chats)(words.LESSON_EXAMPLES[0]).click();
