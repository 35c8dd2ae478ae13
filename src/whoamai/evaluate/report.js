"use strict";
// Filters the list of all answers. Without this script the list is whole and the filters are hidden.
(() => {
  const filters = document.querySelector(".filters");
  if (!filters) return;
  const rows = [...document.querySelectorAll("#every .qa")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const shown = filters.querySelector("output");
  const search = filters.querySelector("input");
  const selects = [...filters.querySelectorAll("select")];
  const apply = () => {
    const wanted = search.value.trim().toLowerCase();
    let count = 0;
    rows.forEach((row, i) => {
      const fits =
        texts[i].includes(wanted) &&
        selects.every((select) => !select.value || row.dataset[select.name] === select.value);
      row.hidden = !fits;
      count += fits;
    });
    shown.textContent = shown.dataset.form.replace("{n}", count).replace("{all}", rows.length);
  };
  filters.addEventListener("input", apply);
  filters.hidden = false;
  apply();
})();
