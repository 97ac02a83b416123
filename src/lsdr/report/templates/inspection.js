(() => {
  "use strict";
  const table = document.querySelector(".layers table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const shown = document.querySelector("#shown");

  const search = document.querySelector("#search");
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let visible = 0;
    for (const row of rows) {
      const text = row.cells[0].textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      visible += !row.hidden;
    }
    shown.textContent = visible === rows.length ? `${rows.length} layers` : `${visible} of ${rows.length} layers`;
  };
  search.addEventListener("input", filter);
  document.querySelector(".tools").hidden = false;
  filter();

  // The first click on a column puts its largest values on top, the second its smallest, the third the model's order.
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const next = { none: "descending", descending: "ascending", ascending: "none" }[head.getAttribute("aria-sort")];
      for (const each of heads) each.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", next);
      const key = (row) => row.cells[place].dataset.value;
      const order = [...rows];
      if (next !== "none") {
        const sign = next === "ascending" ? 1 : -1;
        order.sort((one, other) => {
          if (key(one) === "" || key(other) === "") return (key(one) === "") - (key(other) === "");
          return sign * (Number(key(one)) - Number(key(other)));
        });
      }
      body.append(...order);
    });
  });
})();
