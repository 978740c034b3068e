/** The lesion table: virtual rows under heads that sort. */

import type { Lesion } from "./catalog";
import { figure, make, shorten } from "./dom";
import type { Column, Order } from "./filters";
import { Rows } from "./rows";

const HEIGHT = 28;
const COLUMNS: { column: Column; title: string; cell: (lesion: Lesion) => string }[] = [
  { column: "id", title: "Lesion", cell: (lesion) => shorten(lesion.id, 20) },
  { column: "type", title: "Type", cell: (lesion) => lesion.type ?? "–" },
  { column: "longMm", title: "Long", cell: (lesion) => figure(lesion.longMm) },
  { column: "shortMm", title: "Short", cell: (lesion) => figure(lesion.shortMm) },
  { column: "split", title: "Split", cell: (lesion) => lesion.split ?? "–" },
];

const HINTS: Partial<Record<Column, string>> = { longMm: "long axis in mm", shortMm: "short axis in mm" };

export class LesionTable {
  private readonly rows: Rows;
  private readonly head: HTMLElement;
  private lesions: Lesion[] = [];
  private selected: Lesion | null = null;

  constructor(
    private readonly pane: HTMLElement,
    open: (lesion: Lesion) => void,
    sort: (order: Order) => void,
  ) {
    this.head = make("div", { class: "row head", role: "row" });
    pane.append(this.head);
    let order: Order = { column: null, down: false };
    for (const { column, title } of COLUMNS) {
      const button = make("button", { type: "button", title: HINTS[column] ?? null }, title);
      const cell = make("div", { role: "columnheader", class: `cell ${column}`, "aria-sort": "none" }, button);
      button.addEventListener("click", () => {
        order = next(order, column);
        this.showOrder(order);
        sort(order);
      });
      this.head.append(cell);
    }
    this.rows = new Rows(pane, (row) => this.make(row, open));
  }

  show(lesions: Lesion[]): void {
    this.lesions = lesions;
    this.pane.setAttribute("aria-rowcount", String(lesions.length + 1));
    this.rows.reset(lesions.length, HEIGHT);
  }

  select(lesion: Lesion): void {
    this.selected = lesion;
    for (const row of this.pane.querySelectorAll("[aria-selected]")) mark(row, lesion);
    const place = this.lesions.indexOf(lesion);
    if (place >= 0) this.rows.reveal(place);
  }

  private make(row: number, open: (lesion: Lesion) => void): HTMLElement {
    const lesion = this.lesions[row]!;
    const cells = COLUMNS.map(({ column, cell }) => make("div", { role: "gridcell", class: `cell ${column}` }, cell(lesion)));
    const element = make("div", { role: "row", class: "row", "aria-rowindex": row + 2, "data-lesion": lesion.id, title: lesion.id }, ...cells);
    mark(element, this.selected);
    element.addEventListener("click", () => open(lesion));
    return element;
  }

  private showOrder(order: Order): void {
    COLUMNS.forEach(({ column }, place) => {
      const value = order.column !== column ? "none" : order.down ? "descending" : "ascending";
      this.head.children[place]!.setAttribute("aria-sort", value);
    });
  }
}

/** Up, then down, then the order of the source; of lengths the largest come first. */
function next(order: Order, column: Column): Order {
  const first = column === "longMm" || column === "shortMm";
  if (order.column !== column) return { column, down: first };
  return order.down === first ? { column, down: !first } : { column: null, down: false };
}

export function mark(element: Element, selected: Lesion | null): void {
  element.setAttribute("aria-selected", String(element.getAttribute("data-lesion") === selected?.id));
}
