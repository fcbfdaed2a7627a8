"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const PROBES = { "-1": "no frame (blind)", "-2": "one frame" };

  // Texts only ever become text nodes: nothing of the data is read as markup.
  function el(name, attributes, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }
  function svg(name, attributes, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }
  const text = (value) => el("bdi", {}, String(value));
  const figure = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const seconds = (value) => value.toFixed(2) + " s";

  // A rate on 0..1: its interval as a bar, its value as a dot. No script may set a style here, so all are attributes.
  function range(value, low, high) {
    return svg("svg", { class: "range", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "rail", y: 4, width: 100, height: 2 }),
      svg("rect", { class: "span", x: 100 * low, y: 3, width: Math.max(100 * (high - low), 0.5), height: 4 }),
      svg("rect", { class: "dot", x: Math.min(97, Math.max(0, 100 * value - 1.5)), width: 3, height: 10 }));
  }
  const questionOf = (sample) =>
    sample.question === null ? "(no longer in the store)" : sample.question || "(no question)";
  function verdict(sample) {
    return el("span", { class: sample.reason ? "chip" : "chip kept" }, text(sample.reason || "kept"));
  }

  const stat = (name) => (sample) => (sample.stats ? sample.stats[name] : null);
  const SORTS = [
    ["variance, highest first", stat("reward_var"), -1],
    ["variance, lowest first", stat("reward_var"), 1],
    ["mean reward, lowest first", stat("reward_mean"), 1],
    ["mean reward, highest first", stat("reward_mean"), -1],
    ["blind reward, highest first", stat("blind_mean"), -1],
    ["one-frame reward, highest first", stat("one_frame_mean"), -1],
    ["weight, highest first", stat("weight"), -1],
  ];

  function rowOf(entry) {
    const { sample } = entry;
    const stats = sample.stats || {};
    const number = (label, value, ...more) =>
      el("td", { class: "num", role: "cell", "data-label": label }, figure(value), ...more);
    const button = el("button", { type: "button", class: "open", dir: "auto", "aria-haspopup": "dialog" }, questionOf(sample));
    const mean = sample.stats ? range(stats.reward_mean, stats.reward_low, stats.reward_high) : null;
    const row = el("tr", { role: "row", "data-id": sample.sample_id },
      el("td", { role: "cell" }, button, el("div", { class: "id" }, text(sample.sample_id + " · " + sample.chosen))),
      el("td", { role: "cell" }, sample.task),
      el("td", { role: "cell" }, text(sample.source)),
      el("td", { role: "cell" }, verdict(sample)),
      number("variance", stats.reward_var),
      number("mean", stats.reward_mean, ...(mean ? [mean] : [])),
      number("blind", stats.blind_mean),
      number("one frame", stats.one_frame_mean));
    row.addEventListener("click", () => open(entry));
    return row;
  }

  const entries = data.samples.map((sample, place) => {
    const words = [sample.sample_id, sample.video_id, sample.question || "", sample.answer, ...sample.options];
    const entry = { sample, place, words: words.join("\n").toLowerCase() };
    entry.row = rowOf(entry);
    return entry;
  });
  let visible = entries;

  function fill(select, first, values) {
    select.append(el("option", { value: "" }, first));
    for (const [value, label] of values) select.append(el("option", { value }, label));
  }
  function tally(key) {
    const counts = new Map();
    for (const { sample } of entries) counts.set(key(sample), (counts.get(key(sample)) || 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  }
  const options = (key) => tally(key).map(([name, count]) => ["=" + name, `${name} (${count})`]);
  fill($("f-task"), "all", options((s) => s.task));
  fill($("f-source"), "all", options((s) => s.source));
  fill($("f-chosen"), "all", options((s) => s.chosen));
  const left = entries.filter(({ sample }) => sample.reason).length;
  fill($("f-reason"), "all", [
    ["kept", `kept (${entries.length - left})`],
    ["out", `left out, all (${left})`],
    ...options((s) => s.reason).filter(([value]) => value !== "="),
  ]);
  SORTS.forEach(([name], place) => $("f-sort").append(el("option", { value: String(place) }, name)));

  function fits(entry) {
    const { sample } = entry;
    const equal = (id, value) => !$(id).value || $(id).value === "=" + value;
    const reason = $("f-reason").value;
    const verdictFits = !reason || (reason === "kept" ? !sample.reason : reason === "out" ? !!sample.reason : reason === "=" + sample.reason);
    return verdictFits && equal("f-task", sample.task) && equal("f-source", sample.source) &&
      equal("f-chosen", sample.chosen) && (!$("f-film").checked || !!sample.film) &&
      $("f-text").value.toLowerCase().split(/\s+/).every((word) => entry.words.includes(word));
  }
  function refresh() {
    const [, key, sign] = SORTS[Number($("f-sort").value)];
    visible = entries.filter(fits);
    visible.sort((a, b) => {
      const [x, y] = [key(a.sample), key(b.sample)];
      const [u, v] = [x === null, y === null];  // what was not measured comes last
      return u || v ? u - v || a.place - b.place : sign * (x - y) || a.place - b.place;
    });
    $("rows").replaceChildren(...visible.map((entry) => entry.row));
    $("count").textContent = `Showing ${visible.length} of the ${entries.length} samples in this page.`;
    $("nothing").hidden = visible.length > 0;
  }

  function rate(name, value, low, high, draws) {
    if (value === null) return null;
    return el("div", {}, el("dt", {}, name), el("dd", {}, el("b", {}, figure(value)), range(value, low, high),
      el("span", {}, `95 %: ${figure(low, 2)} to ${figure(high, 2)}, ${draws} draws`)));
  }
  function plain(name, value, note) {
    return el("div", {}, el("dt", {}, name), el("dd", {}, el("b", {}, value), el("span", {}, note)));
  }
  function statistics(sample) {
    const s = sample.stats;
    if (!s) return [el("p", { class: "quiet" }, "Nothing was drawn for this sample.")];
    const least = data.thresholds[sample.task];
    const list = el("dl", { class: "stats" },
      rate("mean reward", s.reward_mean, s.reward_low, s.reward_high, s.draws),
      plain("variance", figure(s.reward_var, 4), least ? `threshold ${least}` : "no threshold"),
      s.between_share === null ? null : plain("between views", figure(100 * s.between_share, 0) + " %", "share of the variance"),
      plain("format", figure(100 * s.format_rate, 0) + " %", "of draws keep it"),
      rate("without frames", s.blind_mean, s.blind_low, s.blind_high, s.blind_draws),
      rate("with one frame", s.one_frame_mean, s.one_frame_low, s.one_frame_high, s.one_frame_draws),
      s.weight === null || s.weight === 1 ? null : plain("weight", figure(s.weight), "how often it is drawn"));
    const note = "The ledger holds other rollouts now than those that this verdict stands on.";
    return sample.changed ? [list, el("p", { class: "note" }, note)] : [list];
  }

  function curve(film, strip, spans) {
    const [start, end] = [film.from, Math.max(film.to, film.from + 1e-3)];
    const x = (time) => ((1000 * (time - start)) / (end - start)).toFixed(1);
    const scores = film.curve.map(([, score]) => score);
    const [low, high] = [Math.min(...scores), Math.max(...scores)];
    const y = (score) => (high > low ? 44 - (38 * (score - low)) / (high - low) : 25).toFixed(1);
    const shape = svg("svg", { class: "curve", viewBox: "0 0 1000 50", preserveAspectRatio: "none", "aria-hidden": "true" });
    for (const [a, b] of spans) {
      const [from, to] = [Math.max(a, start), Math.min(b, end)];
      if (to > from) shape.append(svg("rect", { class: "truth-span", x: x(from), width: x(start + to - from), height: 50 }));
    }
    shape.append(svg("line", { class: "base", x1: 0, x2: 1000, y1: 49, y2: 49 }));
    if (scores.length) shape.append(svg("path", { d: "M" + film.curve.map(([t, s]) => `${x(t)} ${y(s)}`).join("L") }));
    for (const [, time] of strip.frames) shape.append(svg("line", { class: "at", x1: x(time), x2: x(time), y1: 44, y2: 50 }));
    return shape;
  }
  function viewName(variant, kinds) {
    const kind = kinds[variant];
    return PROBES[variant] || `view ${variant}` + (kind ? ` · ${kind}` : "");
  }
  function strips(sample) {
    const { film } = sample;
    const head = el("h3", {}, "Views");
    if (!film) {
      const why = sample.no_film || "This page has no film strips for this sample; --open-film asks for more.";
      return [head, el("p", { class: "quiet" }, text(why))];
    }
    const crop = (c) => (c.join() === "0,0,1,1" ? "" : `, crop ${c.map((v) => v.toFixed(2)).join(" ")}`);
    const parts = film.strips.map((strip) => {
      const frames = strip.frames.map(([image, time, score, inside]) => {
        const alt = `frame at ${seconds(time)}${inside ? ", inside a true span" : ""}`;
        const picture = el("img", { alt, width: film.width, height: film.height, decoding: "async", src: film.images[image] });
        const below = el("figcaption", {}, el("span", {}, seconds(time)), score === null ? null : el("b", { title: "score" }, figure(score)));
        return el("figure", inside ? { class: "in" } : {}, picture, below);
      });
      const about = ` ${strip.frames.length + strip.left_out} frames${strip.left_out ? `, ${strip.frames.length} of them shown` : ""}${crop(strip.crop)}${strip.scale < 1 ? `, scale ${strip.scale}` : ""}`;
      return el("div", { class: "view" }, el("h4", {}, viewName(strip.variant, sample.kinds), el("span", {}, about)),
        curve(film, strip, sample.spans), el("div", { class: "strip" }, ...frames));
    });
    const scored = film.scorer ? ["Under each frame its time and its score by ", text(film.scorer), "; the line is the score over time, ticks are frames."] : ["Under each frame its time; the frames were not scored."];
    const truth = sample.spans.length ? [" ", el("span", { class: "key true" }), "inside a true span."] : [];
    return [head, el("p", { class: "quiet" }, ...scored, ...truth), ...parts];
  }

  const PARTS = [["accuracy", "accuracy"], ["credit", "credit"], ["iou", "IoU"], ["boundary_iou", "boundary IoU"], ["format", "format"]];
  function drawn(response) {
    const parts = PARTS.filter(([name]) => response[name] !== undefined)
      .map(([name, label]) => el("span", {}, label + " ", el("b", {}, figure(response[name], 2))));
    const about = [`${response.tokens} tokens`];
    if (response.logprob !== undefined) about.push(`log-prob ${figure(response.logprob, 1)}`);
    return el("article", { class: "draw", "aria-label": `draw ${response.draw}` },
      el("div", { class: "parts" }, el("span", {}, `draw ${response.draw}`),
        el("span", { class: "reward" }, "reward ", el("b", {}, figure(response.reward, 2))), ...parts, el("span", {}, about.join(", ")),
        response.error ? el("span", { class: "chip wrong" }, text("not read: " + response.error)) : null),
      el("pre", { dir: "auto", tabindex: "0", "aria-label": "response" }, response.text || "(empty)"));
  }
  function responses(sample) {
    const head = el("h3", {}, "Responses drawn");
    if (!sample.responses) return [head, el("p", { class: "quiet" }, "They are beyond the size of this page.")];
    if (!sample.responses.length) return [head, el("p", { class: "quiet" }, "The ledger has none for this sample.")];
    const groups = new Map();
    for (const response of sample.responses) {
      if (!groups.has(response.variant)) groups.set(response.variant, []);
      groups.get(response.variant).push(response);
    }
    return [head, ...[...groups].map(([variant, draws]) => {
      const rewards = draws.map((draw) => draw.reward).filter((reward) => reward !== null);
      const mean = rewards.length ? rewards.reduce((a, b) => a + b) / rewards.length : null;
      const about = ` ${draws.length} draw${draws.length > 1 ? "s" : ""}, mean reward ${figure(mean, 2)}`;
      return el("div", { class: "view" }, el("h4", {}, viewName(variant, sample.kinds), el("span", {}, about)),
        el("div", { class: "draws" }, ...draws.map(drawn)));
    })];
  }
  function truths(sample) {
    const list = sample.options.map((option, place) => {
      const right = LETTERS[place] === sample.answer.trim().toUpperCase();
      return el("li", right ? { class: "right" } : {}, LETTERS[place] + "  ", text(option), right ? " ✓" : "");
    });
    const spans = sample.spans.map(([a, b]) => `${seconds(a)} to ${seconds(b)}`).join(", ");
    return [
      list.length ? el("ol", { class: "options", "aria-label": "options" }, ...list) : null,
      !list.length && sample.answer ? el("p", { class: "truth" }, "Answer: ", el("b", {}, text(sample.answer))) : null,
      spans ? el("p", { class: "truth" }, "True span: ", el("b", {}, spans)) : null,
      sample.clip.length ? el("p", { class: "truth quiet" }, `Asked about ${seconds(sample.clip[0])} to ${seconds(sample.clip[1])} of its video.`) : null,
    ];
  }

  let current = null;
  function open(entry) {
    current = entry;
    const { sample } = entry;
    const facts = [sample.sample_id, sample.task, `${sample.source}, ${sample.split}`, `video ${sample.video_id}`, `chosen: ${sample.chosen}`];
    $("s-body").replaceChildren(
      el("h2", { id: "s-title", dir: "auto" }, questionOf(sample)),
      el("div", { class: "facts quiet" }, verdict(sample), ...facts.map(text)),
      ...truths(sample).filter(Boolean),
      el("h3", {}, "Statistics"), ...statistics(sample), ...strips(sample), ...responses(sample));
    const place = visible.indexOf(entry);
    $("s-place").textContent = `${place + 1} of ${visible.length}`;
    $("s-previous").disabled = place <= 0;
    $("s-next").disabled = place < 0 || place >= visible.length - 1;
    if (!$("sample").open) $("sample").showModal();
    $("s-body").focus({ preventScroll: true });
    document.querySelector(".sheet").scrollTop = 0;
  }
  const step = (by) => {
    const entry = visible[visible.indexOf(current) + by];
    if (entry) open(entry);
  };
  $("s-previous").addEventListener("click", () => step(-1));
  $("s-next").addEventListener("click", () => step(1));
  $("s-close").addEventListener("click", () => $("sample").close());
  $("sample").addEventListener("click", (event) => event.target === $("sample") && $("sample").close());
  $("sample").addEventListener("close", () => current.row.querySelector(".open").focus());
  $("sample").addEventListener("keydown", (event) => {
    if (event.target.tagName === "PRE") return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  const filters = document.querySelector(".filters");
  filters.addEventListener("input", refresh);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(refresh));
  refresh();
})();
