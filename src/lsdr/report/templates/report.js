(() => {
  "use strict";
  const boxes = [...document.querySelectorAll(".plot")];
  // On a touch screen a finger over a plot scrolls the page.
  const touch = matchMedia("(pointer: coarse)").matches;
  for (const box of boxes) {
    const figure = JSON.parse(box.parentElement.querySelector("script").textContent);
    if (touch) figure.layout.dragmode = false;
    Plotly.newPlot(box, figure.data, figure.layout, { responsive: true, displayModeBar: false, doubleClick: "reset" });
  }

  for (const button of document.querySelectorAll(".keys button")) {
    button.addEventListener("click", () => {
      const box = button.closest("figure").querySelector(".plot");
      const shown = button.getAttribute("aria-pressed") !== "true";
      const traces = box.data.flatMap((trace, place) => (trace.legendgroup === button.dataset.group ? [place] : []));
      button.setAttribute("aria-pressed", String(shown));
      if (traces.length) Plotly.restyle(box, { visible: shown }, traces);
    });
  }

  // What was drawn while folded has no width of its own.
  for (const part of document.querySelectorAll("details")) {
    part.addEventListener("toggle", () => {
      for (const box of part.open ? part.querySelectorAll(".plot") : []) Plotly.Plots.resize(box);
    });
  }

  // Paper is narrower than most screens and cannot unfold anything.
  const folded = [];
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) {
      part.open = true;
      folded.push(part);
    }
    for (const box of boxes) {
      const wide = box.closest("figure").matches(".wide, :last-child:nth-child(odd)");
      Plotly.relayout(box, { width: wide ? 630 : 295, height: box.offsetHeight });
    }
  });
  addEventListener("afterprint", () => {
    for (const part of folded.splice(0)) part.open = false;
    for (const box of boxes) Plotly.relayout(box, { autosize: true, width: null, height: null });
  });
})();
