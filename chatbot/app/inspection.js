// The panel below the conversation: why the last reply, or the one whose word was picked, came out
// as it did. After elements.js; all pictures and files are made here, from data that is here.
const words = props.words;
const SHOWN_FROM = 0.005; // a smaller weight leaves its cell blank, which keeps the page light
const ZOOM = { step: 1.25, least: 0.5, most: 3 };
const COLOURS = { weight: "#f59e0b", inside: "#0f766e", outside: "#e7e5e4" };
let look = null; // what transcript.js chose
let empty = true;
let zoom = 1;

const hint = (text) => make("p", { class: "hint" }, text);
const heading = (text) => make("h2", {}, text);
const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
const passWord = (word) => tell("pass", word === null ? null : { look, word });
const onWord = (word) => ({ onpointerenter: () => passWord(word), onpointerleave: () => passWord(null), onclick: () => tell("keep", { look, word }) });

// Why this reply?
const readSentence = () => {
  const read = look.index - look.first, tokens = look.source.length;
  if (look.partly) return fillIn(words.READ_PART, tokens);
  return look.first ? fillIn(words.READ_SOME, tokens, read, look.first) : fillIn(words.READ_ALL, tokens);
};
const nameOf = (index) => {
  const { role, content } = look.messages[index], letters = [...content];
  const text = letters.length > 60 ? `${letters.slice(0, 60).join("")} …` : content;
  return fillIn(role === "user" ? words.YOUR_MESSAGE : words.OWN_MESSAGE, text);
};
const turns = () => look.shares.map((share, at) => [share, nameOf(look.first + at)]).sort((a, b) => b[0] - a[0]);
const why = () => {
  const said = [readSentence()], list = [];
  if (look.weights) {
    const [[share, name]] = turns();
    said.push(fillIn(words.DREW_ON, name, percent(share)));
    said.push(fillIn(words.SPREAD, mean(look.entropy).toFixed(2), Math.log(look.source.length).toFixed(2)));
    for (const [share, name] of turns().slice(0, 5)) list.push(make("li", { style: `--share:${share}` }, make("span", {}, name), percent(share)));
  } else said.push(words.ATTENTION_NONE);
  if (words.WINDOWS[look.window] && look.weights) said.push(fillIn(words.WINDOWS[look.window], look.reach));
  return [heading(words.WHY), ...said.map((text) => make("p", {}, text)), ...(list.length > 1 ? [make("ul", { class: "turns" }, ...list)] : [])];
};
const shaded = () => make("div", { class: "words" }, ...look.words.map(([token], word) =>
  make("span", { class: "chip", style: `--weight:${look.probabilities[word]}`, ...onWord(word) }, visible(token), make("small", {}, percent(look.probabilities[word])))));

// The heat map: a row for each word of the reply, a column for each of the source (Bahdanau 2015)
const cell = (weight, at, word) => {
  const kind = (isInside(look, word, at) ? "inside " : "") + (Math.round(look.centres?.[word]) === at ? "centre" : "");
  if (weight < SHOWN_FROM) return make("td", { class: kind });
  const title = `${quoted(look.words[word][0])} → ${quoted(look.source[at][0])}: ${weight.toFixed(3)}`;
  return make("td", { class: kind, title, style: `--weight:${weight}` }, make("span", {}, weight.toFixed(2)));
};
const heatMap = () => {
  const head = look.source.map(([token]) => make("th", { scope: "col" }, make("span", {}, visible(token))));
  const rows = look.weights.map((weights, word) => make("tr", onWord(word),
    make("th", { scope: "row" }, visible(look.words[word][0])), ...weights.map((weight, at) => cell(weight, at, word))));
  const table = make("table", { style: `--zoom:${zoom}` }, make("thead", {}, make("tr", {}, make("td", {}), ...head)), make("tbody", {}, ...rows));
  const resize = (factor) => {
    zoom = Math.min(Math.max(zoom * factor, ZOOM.least), ZOOM.most);
    table.style.setProperty("--zoom", zoom);
  };
  const tools = make("div", { class: "tools" }, iconButton("smaller", words.ZOOM_OUT, () => resize(1 / ZOOM.step)), iconButton("larger", words.ZOOM_IN, () => resize(ZOOM.step)),
    textButton("PNG", savePng), textButton("SVG", () => save("svg", svgText(), "image/svg+xml")), textButton("CSV", () => save("csv", csvText(), "text/csv")));
  return [heading(words.HEAT_MAP), hint(words.HEAT_HINT), tools, make("div", { class: "heat", tabindex: "0", role: "region", "aria-label": words.HEAT_MAP }, table)];
};

const save = (kind, content, type) => {
  const url = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href: url, download: `attention.${kind}` }).click();
  URL.revokeObjectURL(url);
};
const csvText = () => {
  const lines = [["", ...look.source.map(([token]) => token)], ...look.weights.map((weights, word) => [look.words[word][0], ...weights])];
  return lines.map((line) => line.map((value) => `"${String(value).replaceAll('"', '""')}"`).join(",") + "\r\n").join("");
};
const shape = (tag, attributes, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const drawing = () => {
  const side = 24, font = "13px ui-sans-serif, system-ui, sans-serif";
  const pen = make("canvas", {}).getContext("2d");
  pen.font = font;
  const label = (token) => visible(token).replace(/[\p{Cc}\uFFFE\uFFFF]/gu, "\uFFFD"); // no XML may hold these
  const columns = look.source.map(([token]) => label(token)), lines = look.words.map(([token]) => label(token));
  const longest = (labels) => Math.ceil(Math.max(...labels.map((text) => pen.measureText(text).width))) + 16;
  const left = longest(lines), top = longest(columns), width = left + side * columns.length + 8, height = top + side * lines.length + 8;
  const svg = shape("svg", { xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}`, style: `font: ${font}` }, shape("rect", { width, height, fill: "white" }));
  const write = (text, x, y, turn) => svg.append(shape("text", { "text-anchor": turn ? "start" : "end", "dominant-baseline": "central", transform: `translate(${x} ${y}) rotate(${turn})` }, text));
  columns.forEach((text, at) => write(text, left + side * (at + 0.5), top - 6, -90));
  lines.forEach((text, word) => write(text, left - 6, top + side * (word + 0.5), 0));
  look.weights.forEach((weights, word) => weights.forEach((weight, at) => {
    const stroke = isInside(look, word, at) ? COLOURS.inside : COLOURS.outside;
    svg.append(shape("rect", { x: left + side * at + 1, y: top + side * word + 1, width: side - 2, height: side - 2, fill: COLOURS.weight, "fill-opacity": Math.sqrt(weight).toFixed(3), stroke },
      shape("title", {}, `${lines[word]} → ${columns[at]}: ${weight.toFixed(3)}`)));
  }));
  return svg;
};
const svgText = () => new XMLSerializer().serializeToString(drawing());
const savePng = async () => {
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(svgText())}`;
  await image.decode();
  const scale = Math.min(2, 8000 / Math.max(image.width, image.height)); // browsers draw no larger ones
  const canvas = make("canvas", { width: Math.ceil(image.width * scale), height: Math.ceil(image.height * scale) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => save("png", blob, "image/png"));
};

const candidates = () => make("table", { class: "candidates" }, make("caption", {}, words.CANDIDATES),
  make("thead", {}, make("tr", {}, make("th", { scope: "col" }, words.CANDIDATE), make("th", { scope: "col" }, look.score))),
  make("tbody", {}, ...look.candidates.map(([text, score]) => make("tr", {}, make("td", {}, text), make("td", {}, score.toFixed(2))))));

const draw = () => {
  if (!details.open) return;
  if (!look) return body.replaceChildren(hint(empty ? words.ATTENTION_EMPTY : words.ATTENTION_STOPPED));
  const parts = look.hint ? [hint(look.hint)] : [...why(), ...(look.instead ? [hint(words.INSTEAD)] : []), hint(words.SURE), shaded()];
  if (look.weights) parts.push(...heatMap());
  if (look.candidates.length) parts.push(candidates());
  body.replaceChildren(...parts);
  const heat = body.querySelector(".heat");
  if (heat) heat.scrollLeft = heat.scrollWidth; // the newest words
};
const body = make("div", {});
const details = make("details", { ontoggle: draw }, make("summary", {}, words.ATTENTION), body);
element.replaceChildren(details);
hear("chosen", (chosen) => {
  look = chosen.look ?? null;
  empty = chosen.empty;
  draw();
});
watch("value", () => props.value && tell("look", JSON.parse(props.value.json)));
