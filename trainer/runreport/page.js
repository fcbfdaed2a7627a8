"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const AT_ONCE = 20;  // pairs that are drawn before one asks for more
  const [LEFT, RIGHT, TOP, BOTTOM] = [46, 390, 10, 194];  // the frame of a chart, as charts.py draws it

  // Texts only ever become text nodes: nothing of the data is read as markup.
  function el(name, attributes, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }
  const text = (value) => el("bdi", {}, String(value));
  const figure = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const seconds = (value) => value.toFixed(2) + " s";

  function toggle() {
    for (const box of document.querySelectorAll(".toggle"))
      for (const node of document.querySelectorAll(`[data-run="${box.value}"]`)) node.classList.toggle("off", !box.checked);
  }
  function across() {
    for (const node of document.querySelectorAll(".by")) node.hidden = node.dataset.axis !== $("axis").value;
    for (const node of document.querySelectorAll(".readout")) node.textContent = "";
  }
  const off = (run) => !document.querySelector(`.toggle[value="${run}"]`).checked;
  document.querySelector(".legend-bar").addEventListener("input", () => {
    toggle();
    across();
    document.body.classList.toggle("no-raw", !$("raw").checked);
  });

  function nearest(xs, x) {
    let best = 0;
    xs.forEach((value, place) => { if (Math.abs(value - x) < Math.abs(xs[best] - x)) best = place; });
    return best;
  }
  const plain = (value) => (value === null ? "none" : String(Number(value.toPrecision(4))));
  function point(event) {
    const picture = event.currentTarget;
    const axis = data.axes[picture.dataset.axis];
    const values = data.panels[picture.parentElement.dataset.panel];
    const svg = picture.querySelector("svg");
    const box = svg.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const share = Math.min(1, Math.max(0, (place - LEFT) / (RIGHT - LEFT)));
    const x = Number(picture.dataset.low) + share * (Number(picture.dataset.high) - Number(picture.dataset.low));
    const said = [];
    data.runs.forEach((name, run) => {
      const xs = axis.xs[run];
      if (!xs.length || off(run) || x > xs[xs.length - 1] + (xs[xs.length - 1] - xs[0]) * 0.02) return;
      const k = nearest(xs, x);
      if (!values.smooth[run].some((value) => value !== null)) return;
      said.push(` ${name}: ${plain(values.raw[run][k])}, smoothed ${plain(values.smooth[run][k])}.`);
    });
    picture.parentElement.querySelector(".readout").replaceChildren(`${axis.label} ${plain(x)}:`, ...said.map(text));
    let line = svg.querySelector(".cursor");
    if (!line) {
      line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      line.setAttribute("class", "cursor");
      svg.append(line);
    }
    const at = LEFT + share * (RIGHT - LEFT);
    for (const [key, value] of [["x1", at], ["x2", at], ["y1", TOP], ["y2", BOTTOM]]) line.setAttribute(key, value);
  }
  function leave(event) {
    event.currentTarget.parentElement.querySelector(".readout").textContent = "";
    event.currentTarget.querySelector(".cursor")?.remove();
  }
  for (const picture of document.querySelectorAll(".panel .by")) {
    picture.addEventListener("pointermove", point);
    picture.addEventListener("pointerleave", leave);
  }
  toggle();
  across();
  document.body.classList.toggle("no-raw", !$("raw").checked);

  if (!data.answers) return;
  const names = data.answers.names;

  function strip(film, one) {
    const frames = one.frames.map(([image, time, , inside]) => {
      const alt = `frame at ${seconds(time)}${inside ? ", inside a true span" : ""}`;
      const picture = el("img", { alt, width: film.width, height: film.height, decoding: "async", src: film.images[image] });
      return el("figure", inside ? { class: "in" } : {}, picture, el("figcaption", {}, el("span", {}, seconds(time))));
    });
    const who = one.variant < 0 ? "Frames that both saw" : ["Frames that ", text(names[one.variant]), " saw"];
    const all = one.frames.length + one.left_out;
    const about = ` ${one.kind}, ${all} frames${one.left_out ? `, ${one.frames.length} of them shown` : ""}`;
    return el("div", { class: "view" }, el("h4", {}, ...[who].flat(), el("span", {}, about)), el("div", { class: "strip" }, ...frames));
  }
  function side(pair, place) {
    const answer = pair.sides[place];
    const better = place ? pair.gain > 0 : pair.gain < 0;
    const parts = [];
    if (answer.accuracy !== undefined) parts.push(el("span", {}, answer.accuracy === 1 ? "right" : "wrong"));
    if (answer.credit !== undefined && answer.credit !== answer.accuracy) parts.push(el("span", {}, "credit ", el("b", {}, figure(answer.credit))));
    if (answer.iou !== undefined) parts.push(el("span", {}, "IoU ", el("b", {}, figure(answer.iou))));
    if (answer.span) parts.push(el("span", {}, `says ${answer.span.map(seconds).join(" to ")}`));
    if (answer.merit === null) parts.push(el("span", {}, "no truth to grade by"));
    parts.push(el("span", {}, answer.view + " view"));
    if (answer.tokens !== null && answer.tokens !== undefined) parts.push(el("span", {}, `${answer.tokens} tokens`));
    return el("article", { class: better ? "draw better" : "draw" },
      el("h4", {}, text(names[place]), " ", better ? el("span", { class: "chip better" }, "better") : null),
      el("div", { class: "parts" }, ...parts),
      answer.error ? el("div", {}, el("span", { class: "chip wrong" }, text("not read: " + answer.error))) : null,
      answer.failure ? el("div", {}, el("span", { class: "chip wrong" }, text("no response: " + answer.failure))) : null,
      answer.failure ? null : el("pre", { dir: "auto", tabindex: "0", "aria-label": `response of ${names[place]}` }, answer.text || "(empty)"));
  }
  function card(pair) {
    const options = pair.options.map((option, place) => {
      const right = LETTERS[place] === pair.answer.trim().toUpperCase();
      return el("li", right ? { class: "right" } : {}, LETTERS[place] + "  ", text(option), right ? " ✓" : "");
    });
    const spans = pair.spans.map(([a, b]) => `${seconds(a)} to ${seconds(b)}`).join(", ");
    const films = pair.film ? pair.film.strips.map((one) => strip(pair.film, one)) : [];
    return el("article", { class: "pair-card", "data-id": pair.sample_id },
      el("h3", { dir: "auto" }, pair.question || "(no question)"),
      el("div", { class: "facts quiet" }, text(pair.sample_id), text(pair.task), text(pair.dataset)),
      options.length ? el("ol", { class: "options", "aria-label": "options" }, ...options) : null,
      !options.length && pair.answer ? el("p", { class: "truth" }, "Answer: ", el("b", {}, text(pair.answer))) : null,
      spans ? el("p", { class: "truth" }, "True span: ", el("b", {}, spans)) : null,
      el("div", { class: "sides" }, side(pair, 0), side(pair, 1)),
      ...films,
      pair.no_film ? el("p", { class: "quiet" }, "No frames: ", text(pair.no_film), ".") : null);
  }

  const entries = data.answers.pairs.map((pair) => {
    const words = [pair.sample_id, pair.question, pair.answer, ...pair.options, ...pair.sides.map((one) => one.text)];
    return { pair, words: words.join("\n").toLowerCase(), node: null };
  });
  const tasks = [...new Set(entries.map(({ pair }) => pair.task))].sort();
  $("f-task").append(el("option", { value: "" }, "all"), ...tasks.map((task) => el("option", { value: task }, task)));
  for (const [value, label] of [["", "any"], ["1", names[1]], ["0", names[0]], ["same", "neither"]])
    $("f-better").append(el("option", { value }, label));
  let room = AT_ONCE;
  function fits({ pair, words }) {
    const better = $("f-better").value;
    const who = pair.gain > 0 ? "1" : pair.gain < 0 ? "0" : "same";
    return (!better || better === who) && (!$("f-task").value || $("f-task").value === pair.task) &&
      (!$("f-film").checked || !!pair.film) &&
      $("f-text").value.toLowerCase().split(/\s+/).every((word) => words.includes(word));
  }
  function refresh() {
    const found = entries.filter(fits);
    $("pairs").replaceChildren(...found.slice(0, room).map((entry) => (entry.node = entry.node || card(entry.pair))));
    $("count").textContent = `Showing ${Math.min(room, found.length)} of ${found.length} that fit, ${entries.length} in this page.`;
    $("more").hidden = found.length <= room;
  }
  const filters = document.querySelector("#answers .filters");
  filters.addEventListener("input", () => { room = AT_ONCE; refresh(); });
  filters.addEventListener("submit", (event) => event.preventDefault());
  $("more").addEventListener("click", () => { room += AT_ONCE; refresh(); });
  refresh();
})();
