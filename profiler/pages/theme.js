// Light or dark: what was asked for in the address, what was chosen before, or what the system says.
(() => {
  const root = document.documentElement, button = document.getElementById("theme");
  const kept = (value) => {
    try {
      return value ? localStorage.setItem("profiler-theme", value) : localStorage.getItem("profiler-theme");
    } catch {
      return null; // storage may be switched off
    }
  };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const label = () => (button.textContent = isDark() ? "Light" : "Dark");
  const asked = new URLSearchParams(location.search).get("theme") || kept();
  if (asked === "dark" || asked === "light") root.dataset.theme = asked;
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    kept(root.dataset.theme);
    label();
  });
  label();
})();
