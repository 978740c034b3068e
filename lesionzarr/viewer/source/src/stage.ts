/** Where a slice stands on the screen: layers of the right aspect ratio, zoom, pan, scale bar and gestures. */

import type { Box, Volume } from "./catalog";
import { find, set } from "./dom";
import { closeUp, pixelSize } from "./marks";

/** What the pointer and the wheel ask for. */
export interface Gestures {
  scroll(slices: number): void;
  /** Drag with the right button, or with shift, in pixels of the screen. */
  window(right: number, down: number): void;
  /** Pixel under the pointer; null outside of the slice. */
  hover(at: { x: number; y: number } | null): void;
}

export type Framing = "slice" | "lesion";

const LENGTHS_MM = [1, 2, 5, 10, 20, 50, 100, 200];
/** A finger on a touchpad sends many small steps; a wheel sends one of this or more. */
const NOTCH = 40;

export class Stage {
  readonly canvas = find<HTMLCanvasElement>("slice");
  readonly mask = find<HTMLCanvasElement>("mask");
  readonly marks = document.getElementById("marks") as unknown as SVGElement;
  private readonly root = find("stage");
  private volume: Volume | null = null;
  /** Pixels of the screen per mm, or per pixel of the slice where the spacing is unknown. */
  private scale = 1;
  /** Pixel of the slice in the middle of the screen. */
  private centre = { x: 0, y: 0 };
  private framed: { framing: Framing; box: Box | null } | null = null;

  constructor(private readonly gestures: Gestures) {
    new ResizeObserver(() => this.refit()).observe(this.root);
    this.listen();
  }

  /** Makes room for the slices of a volume. */
  setVolume(volume: Volume): void {
    this.volume = volume;
    const [, rows, columns] = volume.shape;
    for (const layer of [this.canvas, this.mask]) {
      if (layer.width !== columns) layer.width = columns;
      if (layer.height !== rows) layer.height = rows;
      layer.getContext("2d")!.clearRect(0, 0, columns, rows);
    }
    set(this.marks, { viewBox: `-0.5 -0.5 ${columns} ${rows}` });
    this.marks.replaceChildren();
    this.showSides(volume);
  }

  /** Shows the whole slice, or what lies round a box. */
  frame(framing: Framing, box: Box | null): void {
    this.framed = { framing, box };
    this.refit();
  }

  zoom(factor: number): void {
    this.framed = null;
    this.scale = Math.min(Math.max(this.scale * factor, 0.2), 100);
    this.place();
  }

  private refit(): void {
    if (!this.volume || !this.root.clientWidth) return;
    const { clientWidth: width, clientHeight: height } = this.root;
    const { dx, dy } = pixelSize(this.volume!);
    if (this.framed) {
      const [, rows, columns] = this.volume.shape;
      const box = this.framed.framing === "lesion" ? this.framed.box : null;
      if (box) {
        this.scale = Math.min(width, height) / closeUp(this.volume, box);
        this.centre = { x: (box.x0 + box.x1) / 2, y: (box.y0 + box.y1) / 2 };
      } else {
        this.scale = Math.min(width / (columns * dx), height / (rows * dy));
        this.centre = { x: (columns - 1) / 2, y: (rows - 1) / 2 };
      }
    }
    this.place();
  }

  private place(): void {
    const { dx, dy } = pixelSize(this.volume!);
    const [, rows, columns] = this.volume!.shape;
    const style = {
      left: `${this.root.clientWidth / 2 - (this.centre.x + 0.5) * dx * this.scale}px`,
      top: `${this.root.clientHeight / 2 - (this.centre.y + 0.5) * dy * this.scale}px`,
      width: `${columns * dx * this.scale}px`,
      height: `${rows * dy * this.scale}px`,
    };
    for (const layer of [this.canvas, this.mask, this.marks]) Object.assign(layer.style, style);
    this.showScale();
  }

  private showScale(): void {
    const bar = find("scale");
    bar.hidden = !this.volume!.spacing[2];
    const longest = (0.3 * this.root.clientWidth) / this.scale;
    const length = LENGTHS_MM.findLast((mm) => mm <= longest) ?? LENGTHS_MM[0]!;
    bar.style.width = `${length * this.scale}px`;
    bar.textContent = `${length} mm`;
  }

  private showSides({ orientation }: Volume): void {
    const [top, bottom] = letters(orientation?.[1]);
    const [left, right] = letters(orientation?.[2]);
    for (const [id, letter] of Object.entries({ top, bottom, left, right })) find(`side-${id}`).textContent = letter;
  }

  /** Gives the pixel of the slice under a place of the screen. */
  private pixel(event: MouseEvent): { x: number; y: number } {
    const box = this.canvas.getBoundingClientRect();
    const [, rows, columns] = this.volume!.shape;
    const x = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const y = Math.floor(((event.clientY - box.top) / box.height) * rows);
    return { x, y };
  }

  private listen(): void {
    let rolled = 0;
    this.root.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const delta = event.deltaMode ? Math.sign(event.deltaY) * NOTCH : event.deltaY;
        if (event.ctrlKey) {
          this.zoom(Math.exp(-delta / 200));
          return;
        }
        rolled = Math.abs(delta) >= NOTCH ? Math.sign(delta) * NOTCH : rolled + delta;
        const steps = Math.trunc(rolled / NOTCH);
        rolled -= steps * NOTCH;
        if (steps) this.gestures.scroll(steps);
      },
      { passive: false },
    );
    this.root.addEventListener("contextmenu", (event) => event.preventDefault());
    this.root.addEventListener("pointerdown", (event) => {
      this.root.setPointerCapture(event.pointerId);
      this.root.focus({ preventScroll: true });
    });
    this.root.addEventListener("pointermove", (event) => {
      if (!this.volume) return;
      if (event.buttons & 2 || (event.buttons & 1 && event.shiftKey)) this.gestures.window(event.movementX, event.movementY);
      else if (event.buttons & 1) this.pan(event.movementX, event.movementY);
      const at = this.pixel(event);
      const [, rows, columns] = this.volume.shape;
      this.gestures.hover(at.x >= 0 && at.y >= 0 && at.x < columns && at.y < rows ? at : null);
    });
    this.root.addEventListener("pointerleave", () => this.gestures.hover(null));
  }

  private pan(right: number, down: number): void {
    this.framed = null;
    const { dx, dy } = pixelSize(this.volume!);
    this.centre = { x: this.centre.x - right / (dx * this.scale), y: this.centre.y - down / (dy * this.scale) };
    this.place();
  }
}

/** First letters of both ends of an axis, as `R` and `L` of `right-to-left`. */
function letters(words: string | undefined): [string, string] {
  const [from, to] = words?.split("-to-") ?? [];
  return [from?.[0]?.toUpperCase() ?? "", to?.[0]?.toUpperCase() ?? ""];
}
