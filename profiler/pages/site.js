// The pages of a site that are no report: the table of components, and the queries. Nothing is fetched.
(() => {
  const make = (name, properties = {}) => Object.assign(document.createElement(name), properties);

  const copy = async (text, button) => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy by hand";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  };
  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button.parentElement.querySelector("code").textContent, button));
  }
  const openAsked = () => {
    const asked = location.hash && document.getElementById(location.hash.slice(1))?.querySelector("details");
    if (asked) {
      asked.open = true;
      asked.scrollIntoView();
    }
  };
  if (document.querySelector(".query")) {
    openAsked();
    addEventListener("hashchange", openAsked);
  }

  const data = window.profilerComponents;
  document.documentElement.dataset.drawn = "true";
  if (!data) return;
  const { columns, formats, links } = data, names = Object.keys(formats), n = columns.component.length;
  const body = document.querySelector("#components tbody"), more = document.getElementById("more");
  const field = document.querySelector("input[name=q]"), found = document.getElementById("found");
  const haystack = Array.from({ length: n }, (_, i) => names.filter((c) => formats[c] === "word").map((c) => columns[c][i] ?? "").join(" ").toLowerCase());
  const STEP = 100;
  const state = { q: "", sort: "share", down: true, shown: STEP };

  const short = (value) => {
    if (value === null || value === undefined) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text = size < 1e-4 || size >= 1e7 ? value.toExponential(2) : Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
    return text.replaceAll("-", "−");
  };
  const percent = (value) => (value === null ? "–" : `${short(100 * value)} %`);
  const textOf = (column, i) => {
    const value = columns[column][i];
    if (formats[column] === "word") return value ?? "–";
    if (formats[column] !== "share") return short(value);
    const [lo, hi] = [columns[column + "_lo"]?.[i], columns[column + "_hi"]?.[i]];
    return percent(value) + (lo === undefined || lo === null ? "" : ` (${short(100 * lo)}–${short(100 * hi)})`);
  };
  const cellOf = (column, i) => {
    const cell = make("td", { className: formats[column] === "word" ? "" : "num" });
    const value = columns[column][i], most = data.full[column];
    if (column === "component" && links[i]) cell.append(make("a", { href: `cards/${value.replace(":", "-")}.html`, textContent: value }));
    else cell.textContent = textOf(column, i);
    if (most && value !== null) {
      cell.setAttribute("style", `--bar:${((100 * value) / most).toFixed(1)}%`);
    }
    if (formats[column] === "signed" && value) cell.classList.add(value > 0 ? "positive" : "negative");
    return cell;
  };
  const matches = (words) => (i) => words.every((word) => haystack[i].split(" ").some((one) => one.startsWith(word)));
  const order = (a, b) => {
    const [x, y] = [columns[state.sort][a], columns[state.sort][b]];
    if (x === y) return a - b;
    if (x === null || y === null) return x === null ? 1 : -1;
    const less = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
    return state.down ? -less : less;
  };
  let current = [];
  const show = () => {
    current = Array.from({ length: n }, (_, i) => i).filter(matches(state.q.toLowerCase().split(/\s+/).filter(Boolean))).sort(order);
    const rows = current.slice(0, state.shown).map((i) => {
      const row = make("tr");
      row.append(...names.map((column) => cellOf(column, i)));
      return row;
    });
    body.replaceChildren(...rows);
    more.hidden = current.length <= state.shown;
    found.textContent = `${current.length.toLocaleString("en")} of ${n.toLocaleString("en")} components` + (more.hidden ? "" : `, ${state.shown} shown`);
    for (const button of document.querySelectorAll("#components th button")) {
      const sorted = button.dataset.column === state.sort;
      button.parentElement.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
    }
  };
  const remember = () => {
    const kept = new URLSearchParams(Object.entries({ q: state.q, sort: state.sort, up: state.down ? "" : "1" }).filter(([, v]) => v));
    history.replaceState(null, "", "#" + kept);
  };
  const recall = () => {
    const kept = new URLSearchParams(location.hash.slice(1));
    state.q = field.value = kept.get("q") || "";
    state.sort = names.includes(kept.get("sort")) ? kept.get("sort") : "share";
    state.down = !kept.get("up");
    show();
  };
  field.addEventListener("input", () => {
    Object.assign(state, { q: field.value, shown: STEP });
    show();
    remember();
  });
  field.form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of document.querySelectorAll("#components th button")) {
    button.addEventListener("click", () => {
      const column = button.dataset.column;
      state.down = column === state.sort ? !state.down : formats[column] !== "word";
      state.sort = column;
      show();
      remember();
    });
  }
  more.addEventListener("click", () => {
    state.shown += STEP;
    show();
  });
  document.getElementById("csv").addEventListener("click", () => {
    const quoted = (value) => (/[",\r\n]/.test(value ?? "") ? '"' + String(value).replaceAll('"', '""') + '"' : value ?? "");
    const all = Object.keys(columns);
    const text = [all, ...current.map((i) => all.map((c) => columns[c][i]))].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "components.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  addEventListener("hashchange", recall);
  recall();
})();
