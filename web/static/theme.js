// Before the first paint, so that nothing flashes in the wrong colours: the theme that was chosen on this machine, if one was.
try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing follows its own setting.
}
