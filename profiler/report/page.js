// Draws the charts of the page from the data inside it, and works its buttons. Nothing is fetched.
(() => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const rowsOf = (columns) => {
    const names = Object.keys(columns);
    const n = names.length ? columns[names[0]].length : 0;
    return Array.from({ length: n }, (_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
  };
  const specOf = (id) => {
    const { spec, datasets } = page.charts[id];
    return { ...spec, datasets: Object.fromEntries(datasets.map((name) => [name, rowsOf(page.datasets[name])])) };
  };
  const optionsFor = (box) => {
    const columns = Math.max(2, Math.floor((box.clientWidth - 50) / 110));
    const config = { ...page.config, legend: { ...page.config.legend, columns } };
    return { actions: false, renderer: "svg", config, tooltip: { theme: "page" } };
  };
  const draw = async (box) => {
    try {
      await vegaEmbed(box, specOf(box.dataset.chart), optionsFor(box));
    } catch (error) {
      box.textContent = "This chart could not be drawn: " + error.message;
      console.error(error);
    }
  };
  const drawAll = async () => {
    for (const box of document.querySelectorAll(".chart-box")) await draw(box);
    document.documentElement.dataset.drawn = "true";
  };

  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  const csvOf = (columns) => {
    const names = Object.keys(columns);
    const lines = rowsOf(columns).map((row) => names.map((name) => quoted(row[name])).join(","));
    return [names.map(quoted).join(","), ...lines].join("\r\n") + "\r\n";
  };
  const save = (name, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  for (const button of document.querySelectorAll("button.csv")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const main = page.charts[button.dataset.chart].datasets[0];
      save(button.dataset.name + ".csv", csvOf(page.datasets[main]));
    });
  }

  const copy = async (text, button) => {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.body.appendChild(Object.assign(document.createElement("textarea"), { value: text }));
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

  const dialog = document.body.appendChild(document.createElement("dialog"));
  const show = (details) => {
    dialog.replaceChildren();
    const head = dialog.appendChild(document.createElement("p"));
    head.append(Object.assign(document.createElement("strong"), { textContent: details.querySelector("summary").textContent }));
    const button = head.appendChild(Object.assign(document.createElement("button"), { type: "button", textContent: "Copy" }));
    const close = head.appendChild(Object.assign(document.createElement("button"), { type: "button", textContent: "Close" }));
    const pre = dialog.appendChild(details.querySelector("pre").cloneNode(true));
    button.addEventListener("click", () => copy(pre.textContent, button));
    close.addEventListener("click", () => dialog.close());
    dialog.showModal();
  };
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  for (const link of document.querySelectorAll("a.sql")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      show(document.getElementById(link.getAttribute("href").slice(1)));
    });
  }

  const theme = document.getElementById("theme");
  const isDark = () => getComputedStyle(document.documentElement).getPropertyValue("color-scheme").trim() === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const label = () => (theme.textContent = isDark() ? "Light" : "Dark");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    label();
  });
  const asked = new URLSearchParams(location.search).get("theme");
  if (asked === "dark" || asked === "light") document.documentElement.dataset.theme = asked;
  label();
  addEventListener("beforeprint", () => document.querySelectorAll("#queries details").forEach((d) => (d.open = false)));
  drawAll();
})();
