// Draws the charts of the page from the data inside it, colours its contexts, and works its buttons. Nothing is fetched.
(async () => {
  const root = document.documentElement;
  const make = (name, properties = {}) => Object.assign(document.createElement(name), properties);
  const holder = document.getElementById("page-data");

  // The data: JSON, or on a page of a site JSON that was deflated and written in base64.
  const inflated = async (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"))).text();
  };
  const packed = holder.type === "text/plain";
  const page = JSON.parse(packed ? await inflated(holder.textContent) : holder.textContent);
  for (const place of document.querySelectorAll("[data-part]")) place.innerHTML = page.parts[place.dataset.part]; // escaped when made

  const rowsOf = (columns) => {
    const names = Object.keys(columns);
    const n = names.length ? columns[names[0]].length : 0;
    return Array.from({ length: n }, (_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
  };
  // On a phone the names of rows leave most of the width to what is drawn.
  const shortened = (value, most) => JSON.parse(JSON.stringify(value), (key, item) => key === "labelLimit" ? Math.min(item, most) : item);
  const specOf = (id, width) => {
    const { spec, datasets } = page.charts[id];
    return { ...(width < 420 ? shortened(spec, 0.36 * width) : spec), datasets: Object.fromEntries(datasets.map((name) => [name, rowsOf(page.datasets[name])])) };
  };
  const optionsFor = (box) => {
    const width = box.clientWidth;
    const columns = Math.max(1, Math.floor((width - (width < 420 ? 0.36 * width : 50)) / 110));
    const whole = { ...page.config, legend: { ...page.config.legend, columns } };
    const config = width < 420 ? shortened(whole, 0.36 * width) : whole;
    return { actions: false, renderer: "svg", config, tooltip: { theme: "page" } };
  };
  const draw = async (box) => {
    try {
      const { view } = await vegaEmbed(box, specOf(box.dataset.chart, box.clientWidth), optionsFor(box));
      const form = box.parentElement.querySelector("form.brush");
      if (form) brushed(view, form);
    } catch (error) {
      box.textContent = "This chart could not be drawn: " + error.message;
      console.error(error);
    }
  };

  // A range of the spectrum, brushed or typed, shows examples drawn at random from it.
  const drawFrom = (items, most) => {
    // Efraimidis and Spirakis 2006: the largest u^(1/weight) are a draw in proportion to the weights.
    const keyed = items.map((item) => [Math.random() ** (1 / Number(item.dataset.weight)), item]);
    return keyed.sort((a, b) => b[0] - a[0]).slice(0, most).map(([, item]) => item);
  };
  const positionsIn = (bins, lo, hi) => bins.reduce((sum, [low, high, n]) => {
    const share = (Math.min(hi, high) - Math.max(lo, low)) / (high - low);
    return sum + n * Math.max(0, Math.min(1, share));
  }, 0);
  const brushed = (view, form) => {
    const template = form.parentElement.querySelector("template");
    const items = [...template.content.children];
    const { lo: lows, hi: highs, n } = page.datasets[page.charts[form.dataset.chart].datasets[0]];
    const bins = lows.map((low, i) => [low, highs[i], n[i]]);
    const list = form.querySelector("ol"), said = form.querySelector(".drawn");
    const show = (lo, hi) => {
      const inside = items.filter((item) => Number(item.dataset.at) >= lo && Number(item.dataset.at) <= hi);
      const chosen = drawFrom(inside, 8).sort((a, b) => Number(b.dataset.at) - Number(a.dataset.at));
      list.replaceChildren(...chosen.map((item) => item.cloneNode(true)));
      tint(list, form.closest("figure"));
      const about = Math.round(positionsIn(bins, lo, hi)).toLocaleString("en");
      said.textContent = `${chosen.length} of ${inside.length} stored samples, drawn in proportion to the positions they stand for; about ${about} positions lie there.`;
    };
    const short = (value) => Number(value.toPrecision(3));
    form.hidden = false;
    let waiting = 0;
    view.addSignalListener("brush", (_, value) => {
      const range = Object.values(value)[0];
      if (!range) return;
      [form.lo.value, form.hi.value] = [short(Math.min(...range)), short(Math.max(...range))];
      clearTimeout(waiting);
      waiting = setTimeout(() => show(Math.min(...range), Math.max(...range)), 150);
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const values = [form.lo.value, form.hi.value].map((text, i) => (text === "" ? [-Infinity, Infinity][i] : Number(text)));
      show(Math.min(...values), Math.max(...values));
    });
  };

  // Contexts: coloured by activation or by DLA, the attention of the shown position as a bar above each token.
  const TOKENS = ".context > i, .context > mark, .context > u";
  const reachOf = (figure, index, name) => {
    const given = Number((figure.dataset.reach || "").split(" ")[index]);
    return given || Math.max(1e-12, ...[...figure.querySelectorAll(`[data-${name}]`)].map((e) => Math.abs(e.dataset[name])));
  };
  let coloured = "a";
  const tint = (place, figure) => {
    const reach = reachOf(figure, coloured === "a" ? 0 : 1, coloured);
    for (const token of place.querySelectorAll(TOKENS)) {
      const value = token.dataset[coloured], share = Math.min(1, Math.abs(value) / reach);
      const side = `var(--${coloured === "a" ? "act" : "dla"}-${value < 0 ? "negative" : "positive"})`;
      const plain = value === undefined || (coloured === "a" && token.tagName === "MARK");
      token.style.backgroundColor = plain ? "" : Number(value) ? `color-mix(in oklab, ${side} ${Math.round(8 + 58 * share)}%, transparent)` : "transparent";
      if (token.dataset.w !== undefined) {
        token.style.setProperty("--w", Math.min(1, token.dataset.w));
        token.classList.toggle("attended", token.dataset.w >= 0.02);
      }
    }
  };
  const tintAll = () => {
    root.dataset.coloured = coloured === "a" ? "activation" : "dla";
    for (const figure of document.querySelectorAll("figure.examples")) tint(figure, figure);
    for (const form of document.querySelectorAll("form.brush")) tint(form, form.closest("figure"));
  };
  const toggles = [];
  const addToggle = (figure) => {
    const group = make("span", { className: "colour-by" });
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Colour tokens by");
    for (const [name, words] of [["a", "Activation"], ["d", "DLA"]]) {
      const button = make("button", { type: "button", textContent: words });
      button.dataset.by = name;
      button.addEventListener("click", () => { coloured = name; pressed(); tintAll(); });
      toggles.push(button);
      group.append(button);
    }
    figure.querySelector(".tools").prepend("colour by ", group);
  };
  const pressed = () => toggles.forEach((b) => b.setAttribute("aria-pressed", b.dataset.by === coloured));
  document.querySelectorAll("figure.examples, figure.spectrum").forEach(addToggle);
  pressed();
  tintAll();

  // Hovering over a token, or touching it, tells its numbers.
  const tip = document.body.appendChild(make("div", { id: "token-tip", hidden: true }));
  tip.setAttribute("role", "tooltip");
  const number = (text) => (text === undefined ? "not stored here" : Number(text).toPrecision(3).replace("-", "−"));
  const percent = (text) => (text === undefined ? "not stored here" : `${Number((100 * text).toPrecision(2))} %`);
  const told = (token) => {
    const { a, d, p, w } = token.dataset, next = token.nextElementSibling;
    const rows = [["activation", number(a)], ["DLA, logits", number(d)], ["next token", next ? next.cloneNode(true) : "out of sight"], ["its probability", percent(p)]];
    if (w !== undefined) rows.push(["attention from the shown token", percent(w)]);
    const list = make("dl");
    for (const [term, value] of rows) {
      const cell = make("dd");
      cell.append(value instanceof Node ? plainToken(value) : value);
      list.append(make("dt", { textContent: term }), cell);
    }
    return [plainToken(token.cloneNode(true)), list];
  };
  const plainToken = (token) => {
    const box = make("bdi", { className: "token" });
    box.append(...token.childNodes);
    return box;
  };
  const showTip = (token) => {
    tip.replaceChildren(...told(token));
    tip.hidden = false;
    const at = token.getBoundingClientRect(), width = root.clientWidth;
    tip.style.left = `${Math.max(4, Math.min(at.left, width - tip.offsetWidth - 4))}px`;
    const below = at.bottom + 6, fits = below + tip.offsetHeight < innerHeight;
    tip.style.top = `${fits ? below : Math.max(4, at.top - tip.offsetHeight - 6)}px`;
  };
  document.addEventListener("pointerover", (event) => {
    const token = event.target.closest?.(TOKENS);
    token ? showTip(token) : (tip.hidden = true);
  });
  addEventListener("scroll", () => (tip.hidden = true), { passive: true });
  addEventListener("keydown", (event) => event.key === "Escape" && (tip.hidden = true));

  // Data as CSV: of a chart the rows it draws, of a table or of examples what is shown.
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  const lines = (rows) => rows.map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
  const ofChart = (columns) => [Object.keys(columns), ...rowsOf(columns).map((row) => Object.values(row))];
  const ofTable = (figure) => [...figure.querySelectorAll("tr")].map((row) => [...row.cells].map((cell) => cell.textContent));
  const textOf = (item, selector) => [...item.querySelectorAll(selector)].map((e) => e.textContent).join("");
  const ofExamples = (figure) => [["group", "activation", "dla", "before", "token", "next_and_after", "where"],
    ...[...figure.querySelectorAll(".contexts > li")].map((item) => {
      const tokens = [...item.querySelector(".context").children], at = tokens.findIndex((e) => e.tagName === "MARK");
      const join = (part) => part.map((e) => e.textContent).join("");
      return [item.closest(".group").querySelector("h4").textContent, textOf(item, ".values .act"), textOf(item, ".values .dla"),
        join(tokens.slice(0, at)), tokens[at].textContent, join(tokens.slice(at + 1)), textOf(item, ".where")];
    })];
  const save = (name, text) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  for (const button of document.querySelectorAll("button.csv")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const figure = button.closest("figure"), chart = page.charts[button.dataset.chart];
      const rows = chart ? ofChart(page.datasets[chart.datasets[0]]) : figure.matches(".table") ? ofTable(figure) : ofExamples(figure);
      save(button.dataset.name + ".csv", lines(rows));
    });
  }

  const copy = async (text, button) => {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = (document.querySelector("dialog[open]") || document.body).appendChild(make("textarea", { value: text }));
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    button.textContent = done ? "Copied" : "Select and copy by hand";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  };
  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button.parentElement.querySelector("code").textContent, button));
  }

  // The SQL of a chart; a site keeps the queries in one file beside the pages, which is read when first asked for.
  const dialog = document.body.appendChild(document.createElement("dialog"));
  const show = (name, sql) => {
    dialog.setAttribute("aria-label", `SQL of ${name}`);
    const head = make("p"), pre = make("pre", { tabIndex: 0 });
    const button = make("button", { type: "button", textContent: "Copy" });
    const close = make("button", { type: "button", textContent: "Close" });
    head.append(make("strong", { textContent: name }), button, close);
    pre.append(make("code", { textContent: sql }));
    button.addEventListener("click", () => copy(sql, button));
    close.addEventListener("click", () => dialog.close());
    dialog.replaceChildren(head, pre);
    dialog.showModal();
  };
  const script = (src) => new Promise((done, failed) => document.head.append(make("script", { src, onload: done, onerror: failed })));
  const sqlOf = async (link) => {
    if (!link.dataset.name) return document.getElementById(link.getAttribute("href").slice(1)).querySelector("code").textContent;
    if (!window.profilerQueries) await script(link.getAttribute("href").replace(/queries\.html.*/, "assets/queries.js"));
    return link.dataset.set + window.profilerQueries[link.dataset.name];
  };
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  for (const link of document.querySelectorAll("a.sql")) {
    link.addEventListener("click", async (event) => {
      event.preventDefault();
      const name = link.dataset.name || document.getElementById(link.getAttribute("href").slice(1)).querySelector("summary").textContent;
      show(name, await sqlOf(link));
    });
  }
  addEventListener("beforeprint", () => document.querySelectorAll("#queries details").forEach((d) => (d.open = false)));

  for (const box of document.querySelectorAll(".chart-box")) await draw(box);
  root.dataset.drawn = "true";
})();
