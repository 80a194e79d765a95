"use strict";

const run = JSON.parse(document.getElementById("data").textContent);
const label = {
  pass: "pass", weak: "weak", fail: "FAIL", silent_corruption: "CORRUPT", hang: "HANG", escape: "ESCAPE", crash: "CRASH",
  skipped: "skip",
};
const order = Object.keys(label);
const byId = (id) => document.getElementById(id);

/** An element with properties, attributes (in `attributes`) and children; texts are never read as HTML. */
function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  const { attributes = {}, ...rest } = properties;
  Object.assign(made, rest);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawing(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A case's id without the step of a sweep. */
const whole = (id) => id.replace(/\[\d+\]$/, "");
const area = (id) => id.replace(/\[.*$/, "").split("/").slice(0, -1).join("/");

/** Rows by case, then cells by client: the entries of all steps, the worst first. */
function rows(entries) {
  const found = new Map();
  for (const entry of entries) {
    const id = whole(entry.id);
    if (!found.has(id)) found.set(id, new Map());
    const cells = found.get(id);
    if (!cells.has(entry.client)) cells.set(entry.client, []);
    cells.get(entry.client).push(entry);
  }
  return found;
}

// What is known is worse than a pass, and better than anything that is not known.
const severity = (entry) => (entry.verdict === "skipped" ? -1 : entry.known ? 0.5 : order.indexOf(entry.verdict));
const worst = (entries) => entries.reduce((one, other) => (severity(other) > severity(one) ? other : one));

const shown = { verdict: null, text: "" };

function drawCounts() {
  const all = order.map((verdict) => [verdict, run.counts[verdict] ?? 0]).filter(([, count]) => count > 0);
  byId("counts").replaceChildren(...all.map(([verdict, count]) => {
    const button = element("button", { type: "button", className: verdict }, `${count} ${label[verdict]}`);
    button.setAttribute("aria-pressed", String(shown.verdict === verdict));
    button.onclick = () => { shown.verdict = shown.verdict === verdict ? null : verdict; drawCounts(); drawMatrix(); };
    return button;
  }));
}

/** A client's name in a narrow column: the path of a program without its directories, unless that would not tell clients apart. */
function shortened(client) {
  const short = (name) => name.replace(/^(\w+)=\S*\/(\S+)$/, (all, tool, file) => (tool === file ? tool : `${tool}=${file}`));
  return run.clients.filter((other) => short(other) === short(client)).length === 1 ? short(client) : client;
}

function drawMatrix() {
  const text = shown.text.toLowerCase();
  const head = element("tr", {}, element("th", { scope: "col" }, "case"),
    ...run.clients.map((client) => element("th", { scope: "col", className: "client", title: client }, shortened(client))));
  const body = element("tbody");
  let last = null;
  for (const [id, cells] of rows(run.cases)) {
    const entries = [...cells.values()].flat();
    if (text && !id.toLowerCase().includes(text)) continue;
    if (shown.verdict && !entries.some((entry) => entry.verdict === shown.verdict)) continue;
    if (area(id) !== last) {
      last = area(id);
      const title = element("th", { scope: "colgroup" }, last || "files");
      title.colSpan = run.clients.length + 1;
      body.append(element("tr", { className: "area" }, title));
    }
    body.append(element("tr", {}, element("td", { className: "case" }, id),
      ...run.clients.map((client) => cell(cells.get(client) ?? []))));
  }
  if (!body.children.length) body.append(element("tr", {}, element("td", {}, "no such case")));
  byId("matrix").replaceChildren(element("table", {}, element("thead", {}, head), body));
}

function cell(entries) {
  if (!entries.length) return element("td", { className: "verdict none" }, "–");
  const picked = worst(entries);
  const count = entries.filter((entry) => entry.verdict === picked.verdict).length;
  const known = picked.known ? "known " : "";
  const text = known + (entries.length > 1 ? `${label[picked.verdict]} ${count}/${entries.length}` : label[picked.verdict]);
  const failed = entries.filter((entry) => entry.details);
  if (!failed.length) {
    return element("td", { className: `verdict ${picked.verdict}`, title: picked.reason ?? "" }, text);
  }
  const button = element("button", { type: "button" }, text);
  button.onclick = () => { location.hash = anchor(worst(failed)); };
  return element("td", { className: `verdict ${picked.verdict}` }, button);
}

const anchor = (entry) => `#${encodeURIComponent(`${entry.id} ${entry.client}`)}`;

function open() {
  const wanted = location.hash;
  const entry = run.cases.find((entry) => entry.details && anchor(entry) === wanted);
  const place = byId("details");
  place.hidden = !entry;
  document.querySelector("main").classList.toggle("open", Boolean(entry));
  if (entry) place.replaceChildren(...describe(entry));
}

function describe(entry) {
  const details = entry.details;
  const close = element("button", { type: "button" }, "close");
  close.onclick = () => { history.replaceState(null, "", location.pathname + location.search); open(); };
  const parts = [
    element("div", { className: "head" }, element("h2", { className: "mono" }, entry.id), close),
    element("p", {}, element("strong", { className: entry.verdict }, label[entry.verdict]),
      ` with ${entry.client} against ${run.server}, ${details.seconds.toFixed(3)} s, `, element("code", {}, details.place)),
  ];
  const steps = run.cases.filter((other) => other.details && other.client === entry.client && whole(other.id) === whole(entry.id));
  if (steps.length > 1) {
    const buttons = steps.map((other) => {
      const button = element("button", { type: "button" }, other.id.match(/\[(\d+)\]$/)?.[1] ?? other.id);
      button.setAttribute("aria-pressed", String(other === entry));
      button.onclick = () => { location.hash = anchor(other); };
      return button;
    });
    parts.push(element("h3", {}, "steps that do not pass"), element("div", { className: "chooser" }, ...buttons));
  }
  if (entry.known) parts.push(element("h3", {}, "known"), element("p", {}, entry.known));
  parts.push(element("h3", {}, "required and seen"));
  for (const check of details.checks.filter((check) => !check.ok)) {
    const place = check.place ? [element("span", { className: "place" }, check.place)] : [];
    parts.push(element("p", { className: "check mono" }, check.law ? `law: ${check.check}` : check.check, ...place),
      element("dl", {}, element("dt", {}, "expected"), element("dd", {}, check.expected),
        element("dt", {}, "seen"), element("dd", {}, check.actual)));
  }
  const held = details.checks.filter((check) => check.ok);
  if (held.length) {
    parts.push(element("details", {}, element("summary", {}, `${held.length} requirements hold`),
      element("ul", {}, ...held.map((check) => element("li", { className: "mono" }, check.check)))));
  }
  for (const [client, said] of details.said.filter(([, said]) => said.trim())) {
    parts.push(element("h3", {}, `${client} said`), element("pre", {}, said.trimEnd()));
  }
  if (details.messages.length) parts.push(element("h3", {}, "timeline"), ...timeline(details));
  parts.push(element("h3", {}, "again"), element("pre", {}, details.again));
  if (details.kept) parts.push(element("h3", {}, "kept in"), element("pre", {}, details.kept));
  return parts;
}

/** The position of WAL after each message, as far as the messages tell: a number of bytes, or nothing yet. */
function walPositions(messages) {
  const parse = (text) => { const [high, low] = text.split("/"); return parseInt(high, 16) * 2 ** 32 + parseInt(low, 16); };
  let at = null;
  const streams = new Map();
  return messages.map((message) => {
    const begun = message.name === "Query" && message.detail.match(/^START_REPLICATION .*?([0-9A-F]+\/[0-9A-F]+)/);
    if (begun) streams.set(message.session, parse(begun[1]));
    if (message.name === "CopyData" && message.detail.startsWith("w ") && streams.has(message.session)) {
      streams.set(message.session, streams.get(message.session) + message.bytes);
      at = streams.get(message.session);
    }
    const told = message.name === "CopyData" && message.detail.match(/^k ([0-9A-F]+\/[0-9A-F]+)/);
    if (told) at = Math.max(at ?? 0, parse(told[1]));
    return at;
  });
}

/** A position as PostgreSQL prints it. */
const lsn = (bytes) => `${Math.floor(bytes / 2 ** 32).toString(16)}/${(bytes % 2 ** 32).toString(16)}`.toUpperCase();

function timeline(details) {
  const step = 14, left = 4, laneHeight = 34, top = 58;
  const lanes = details.sessions;
  const height = top + lanes.length * laneHeight + 12;
  const width = left + details.messages.length * step + 20;
  const y = (session) => top + lanes.indexOf(session) * laneHeight + laneHeight / 2;
  const x = (index) => left + index * step + step / 2;
  const svg = drawing("svg", { width, height, role: "img", "aria-label": "messages in their order, a lane for each connection" });
  const names = drawing("svg", { class: "names", width: 64, height, "aria-hidden": "true" });
  for (const session of lanes) {
    svg.append(drawing("line", { class: "lane", x1: 0, x2: width, y1: y(session), y2: y(session) }));
    names.append(drawing("text", { x: 8, y: y(session) + 4 }, session === 0 ? "server" : `#${session}`));
  }
  const positions = walPositions(details.messages);
  const known = positions.filter((position) => position !== null);
  if (known.length) {
    const low = Math.min(...known), span = Math.max(...known) - low || 1;
    const points = positions.map((position, index) => (position === null ? null : `${x(index)},${46 - (34 * (position - low)) / span}`));
    svg.append(drawing("polyline", { class: "wal", points: points.filter(Boolean).join(" ") }));
    names.append(drawing("text", { x: 8, y: 32 }, "WAL"));
  }
  const panel = element("pre", { id: "message" }, "choose a message: click, or use the arrow keys");
  const marks = details.messages.map((message, index) => {
    if (message.kind === "fault") svg.append(drawing("line", { class: "pin", x1: x(index), x2: x(index), y1: 8, y2: height - 6 }));
    const mark = message.kind === "fault"
      ? drawing("rect", { x: x(index) - 6, y: y(message.session) - 6, width: 12, height: 12, transform: `rotate(45 ${x(index)} ${y(message.session)})` })
      : drawing("circle", { cx: x(index), cy: y(message.session) + (message.kind === "received" ? 5 : -5), r: 5 });
    mark.setAttribute("class", `message ${message.kind}`);
    mark.append(drawing("title", {}, `${message.name} ${message.detail}`));
    mark.onclick = () => choose(index);
    return mark;
  });
  svg.append(...marks);
  let chosen = -1;
  const choose = (index) => {
    if (index < 0 || index >= marks.length) return;
    marks[chosen]?.classList.remove("chosen");
    marks[index].classList.add("chosen");
    chosen = index;
    const { at, session, kind, name, detail, count, bytes } = details.messages[index];
    const who = { sent: "server → client", received: "client → server", fault: "fault", note: "server" }[kind];
    const amount = bytes ? `\n${count} message${count === 1 ? "" : "s"}, ${bytes} bytes` : "";
    const wal = positions[index] === null ? "" : `  WAL at ${lsn(positions[index])}`;
    panel.textContent = `${(at / 1e6).toFixed(3)} s  #${session}  ${who}${wal}\n${name} ${detail}${amount}`;
  };
  const frame = element("div", { className: "timeline", tabIndex: 0 }, names, svg);
  frame.onkeydown = (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    choose(chosen + move);
    frame.scrollLeft = x(chosen) - frame.clientWidth / 2;
  };
  const fault = details.messages.findIndex((message) => message.kind === "fault");
  const start = fault < 0 ? marks.length - 1 : fault;
  choose(start);
  requestAnimationFrame(() => { frame.scrollLeft = x(start) - frame.clientWidth / 2; });
  const entry = (kind, text) => {
    const dot = element("i");
    dot.style.background = `var(--${kind})`;
    return element("span", {}, dot, text);
  };
  const legend = element("p", { className: "legend" }, entry("sent", "server to client"), entry("received", "client to server"),
    entry("bad", "fault"), entry("soft", "server's own"));
  return [frame, legend, panel];
}

byId("about").textContent = `${run.cases.length} cases, ${run.clients.join(", ")} against ${run.server}, ` +
  `${run.seconds.toFixed(2)} s${run.cancelled ? "; cancelled: the other cases did not run" : ""}`;
byId("find").oninput = (event) => { shown.text = event.target.value; drawMatrix(); };
window.addEventListener("hashchange", open);
drawCounts();
drawMatrix();
open();
