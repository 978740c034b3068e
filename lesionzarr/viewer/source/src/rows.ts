/** A list of any length of which only the rows in sight are elements. */

const MARGIN = 4;

export class Rows {
  private readonly spacer = document.createElement("div");
  private readonly shown = new Map<number, HTMLElement>();
  private count = 0;
  private height = 1;

  /**
   * @param pane what scrolls
   * @param render makes the element of a row
   */
  constructor(
    private readonly pane: HTMLElement,
    private readonly render: (row: number) => HTMLElement,
  ) {
    this.spacer.className = "rows";
    this.spacer.setAttribute("role", "presentation");
    pane.append(this.spacer);
    pane.addEventListener("scroll", () => this.update(), { passive: true });
    new ResizeObserver(() => this.update()).observe(pane);
  }

  /** Shows that many rows of that height in pixels, each made anew. */
  reset(count: number, height: number): void {
    this.count = count;
    this.height = height;
    this.spacer.style.height = `${count * this.height}px`;
    for (const element of this.shown.values()) element.remove();
    this.shown.clear();
    this.update();
  }

  /** Scrolls as little as is needed to see a row. */
  reveal(row: number): void {
    const top = row * this.height;
    // heads that stick to the top cover rows
    const covered = this.spacer.offsetTop;
    if (top < this.pane.scrollTop) this.pane.scrollTop = top;
    else if (top + this.height + covered > this.pane.scrollTop + this.pane.clientHeight) {
      this.pane.scrollTop = top + this.height + covered - this.pane.clientHeight;
    }
    this.update();
  }

  private update(): void {
    if (!this.pane.clientHeight) return;
    const first = Math.max(0, Math.floor(this.pane.scrollTop / this.height) - MARGIN);
    const seen = Math.ceil(this.pane.clientHeight / this.height) + 2 * MARGIN;
    const last = Math.min(this.count, first + seen);
    for (const [row, element] of this.shown) {
      if (row >= first && row < last) continue;
      element.remove();
      this.shown.delete(row);
    }
    for (let row = first; row < last; row++) {
      if (this.shown.has(row)) continue;
      const element = this.render(row);
      element.style.top = `${row * this.height}px`;
      element.style.height = `${this.height}px`;
      this.shown.set(row, element);
      this.spacer.append(element);
    }
  }
}
