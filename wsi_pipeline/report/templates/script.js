"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);

  // Tables sort by a cell's data-sort if present, else by its text, with numbers in natural order.
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const cellKey = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const compare = (a, b) => {
          const [left, right] = [cellKey(a, column), cellKey(b, column)];
          const [x, y] = [Number(left), Number(right)];
          const order = left !== "" && right !== "" && !isNaN(x) && !isNaN(y) ? x - y : collator.compare(left, right);
          return down ? -order : order;
        };
        table.tBodies[0].append(...all("tbody tr", table).sort(compare));
      });
    });
  }

  // A filter hides items that lack any typed word or are not in the selected state.
  for (const input of all("input[data-filter]")) {
    const items = all(input.dataset.filter);
    const words = items.map((item) => item.textContent.toLowerCase());
    const shown = one(input.dataset.shown);
    const chips = all("button[data-state]", input.closest(".tools"));
    let state = "";
    const apply = () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      items.forEach((item, i) => {
        const fits = wanted.every((word) => words[i].includes(word)) && (!state || item.dataset.state === state);
        item.hidden = !fits;
        count += fits;
      });
      shown.textContent = count === items.length ? "" : `${count} of ${items.length}`;
    };
    input.addEventListener("input", apply);
    for (const chip of chips) {
      chip.addEventListener("click", () => {
        state = chip.dataset.state;
        chips.forEach((other) => other.setAttribute("aria-pressed", String(other === chip)));
        apply();
      });
    }
    // A link to a hidden row or card shows everything again.
    addEventListener("hashchange", () => {
      const target = document.getElementById(location.hash.slice(1));
      if (target && target.hidden && items.includes(target)) {
        input.value = "";
        (chips[0] ?? { click: apply }).click();
        target.scrollIntoView();
      }
    });
  }

  // One model's heatmaps at a time; without scripts all are shown.
  const choice = one("#model-choice");
  if (choice) {
    const apply = () => all(".card [data-model]").forEach((item) => (item.hidden = item.dataset.model !== choice.value));
    choice.addEventListener("change", apply);
    apply();
  }

  // The slider reveals the attention heatmap from the left.
  for (const slider of all("input.slider")) {
    const frame = slider.parentElement.querySelector(".frame");
    const apply = () => {
      frame.style.setProperty("--cut", `${slider.value}%`);
      slider.setAttribute("aria-valuetext", `${slider.value} percent covered by the heatmap`);
    };
    slider.addEventListener("input", apply);
    apply();
  }

  // A link to a model opens it; printing opens everything.
  addEventListener("hashchange", () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) target.open = true;
  });
  addEventListener("beforeprint", () => all("details").forEach((d) => (d.open = true)));

  const viewer = one("#viewer");
  let current = null;
  const show = (button) => {
    if (!button) return;
    current = button;
    const image = all("img", button).filter((img) => !img.hidden).pop();
    one("#viewer-image").src = image.src;
    one("#viewer-image").alt = image.alt;
    one("#viewer-caption").textContent = button.dataset.caption + (image.dataset.caption ?? "");
    if (!viewer.open) viewer.showModal();
  };
  const step = (by) => {
    const visible = all("button.zoom").filter((button) => !button.closest("[hidden]"));
    show(visible[visible.indexOf(current) + by]);
  };
  all("button.zoom").forEach((button) => button.addEventListener("click", () => show(button)));
  one("#viewer-back").addEventListener("click", () => step(-1));
  one("#viewer-on").addEventListener("click", () => step(1));
  one("#viewer-close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
})();
