/** Thumbnails: the key slice round each lesion in its own window, read when it comes into sight. */

import type { Box, Lesion, Volume } from "./catalog";
import { figure, make } from "./dom";
import { closeUp, pixelSize } from "./marks";
import { Rows } from "./rows";
import { mark } from "./table";
import type { VolumeReader } from "./volume";
import { paint, presetNamed } from "./windows";

/** About the width of a tile, the space between two, and the height of its text. */
const TILE = 136;
const GAP = 8;
const TEXT = 38;
const AT_ONCE = 4;
const KEPT = 600;
/** Letters at the end of an id that are always seen. */
const KEPT_END = 9;

/** Part of a slice, half-open; it may reach over the edges. */
interface Part {
  top: number;
  left: number;
  rows: number;
  columns: number;
}

export class Gallery {
  private readonly rows: Rows;
  private lesions: Lesion[] = [];
  private selected: Lesion | null = null;
  private perRow = 3;
  private tile = TILE;
  private readonly pictures = new Map<string, HTMLCanvasElement>();
  private readonly waiting: { lesion: Lesion; frame: HTMLElement }[] = [];
  private running = 0;

  constructor(
    private readonly pane: HTMLElement,
    private readonly open: (lesion: Lesion) => void,
    private readonly reader: (lesion: Lesion) => VolumeReader,
    private readonly fail: (error: unknown) => void,
  ) {
    this.rows = new Rows(pane, (row) => this.makeRow(row));
    new ResizeObserver(() => this.fit()).observe(pane);
  }

  show(lesions: Lesion[]): void {
    this.lesions = lesions;
    this.rows.reset(Math.ceil(lesions.length / this.perRow), this.tile + TEXT + GAP);
  }

  select(lesion: Lesion): void {
    this.selected = lesion;
    for (const tile of this.pane.querySelectorAll("[aria-selected]")) mark(tile, lesion);
    const place = this.lesions.indexOf(lesion);
    if (place >= 0 && this.pane.clientHeight) this.rows.reveal(Math.floor(place / this.perRow));
  }

  private fit(): void {
    // the padding of a row is a gap at each side
    const width = this.pane.clientWidth - GAP;
    const perRow = Math.max(1, Math.round(width / (TILE + GAP)));
    const tile = Math.floor(width / perRow) - GAP;
    if (width <= 0 || (perRow === this.perRow && tile === this.tile)) return;
    this.perRow = perRow;
    this.tile = tile;
    this.pane.style.setProperty("--tile", `${tile}px`);
    this.show(this.lesions);
  }

  private makeRow(row: number): HTMLElement {
    const own = this.lesions.slice(row * this.perRow, (row + 1) * this.perRow);
    return make("div", { class: "tiles", role: "presentation" }, ...own.map((lesion) => this.makeTile(lesion)));
  }

  private makeTile(lesion: Lesion): HTMLElement {
    const frame = make("span", { class: "frame" });
    const size = lesion.longMm === null ? "" : `${figure(lesion.longMm)} mm`;
    // the style cuts the first part of a line alone: the end of an id and the size tell lesions apart
    const cut = Math.max(0, lesion.id.length - KEPT_END);
    const head = make("span", {}, lesion.id.slice(0, cut));
    const tail = lesion.id.slice(cut);
    const facts = size && lesion.type ? [make("span", {}, lesion.type), `, ${size}`] : [lesion.type || size || "–"];
    const tile = make(
      "button",
      { type: "button", class: "tile", role: "option", "data-lesion": lesion.id, title: lesion.id },
      frame,
      make("span", { class: "name" }, head, tail),
      make("span", { class: "facts" }, ...facts),
    );
    mark(tile, this.selected);
    tile.addEventListener("click", () => this.open(lesion));
    const picture = this.pictures.get(lesion.id);
    if (picture) frame.append(picture);
    else {
      this.waiting.push({ lesion, frame });
      this.work();
    }
    return tile;
  }

  private work(): void {
    while (this.running < AT_ONCE) {
      // what came into sight last is looked at now
      const job = this.waiting.pop();
      if (!job) return;
      this.running++;
      // let the row find its place in the page first
      void Promise.resolve()
        .then(() => (job.frame.isConnected ? this.fill(job.lesion, job.frame) : undefined))
        .catch((error: unknown) => {
          job.frame.append(make("span", { class: "none" }, "cannot be read"));
          this.fail(error);
        })
        .finally(() => {
          this.running--;
          this.work();
        });
    }
  }

  private async fill(lesion: Lesion, frame: HTMLElement): Promise<void> {
    const { keyZ, box } = lesion;
    if (keyZ === null || !box) {
      frame.append(make("span", { class: "none" }, "no position"));
      return;
    }
    const reader = this.reader(lesion);
    const picture = await drawThumbnail(reader, lesion, keyZ, lesion.sliceBoxes.get(keyZ) ?? box);
    this.pictures.set(lesion.id, picture);
    const [oldest] = this.pictures.keys();
    if (this.pictures.size > KEPT && oldest !== undefined) this.pictures.delete(oldest);
    frame.append(picture);
  }
}

async function drawThumbnail(reader: VolumeReader, lesion: Lesion, keyZ: number, box: Box): Promise<HTMLCanvasElement> {
  const { volume } = reader;
  const part = place(volume, box);
  const [, height, width] = volume.shape;
  const y0 = Math.max(0, part.top);
  const x0 = Math.max(0, part.left);
  const y1 = Math.min(height, part.top + part.rows);
  const x1 = Math.min(width, part.left + part.columns);
  const canvas = make("canvas", { width: part.columns, height: part.rows });
  const context = canvas.getContext("2d")!;
  context.fillRect(0, 0, part.columns, part.rows);
  const image = new ImageData(x1 - x0, y1 - y0);
  const window = lesion.window ?? presetNamed("soft-tissue", volume.unit);
  paint(await reader.crop(keyZ, y0, y1, x0, x1), window, volume.factor, image.data);
  context.putImageData(image, x0 - part.left, y0 - part.top);
  return canvas;
}

/** A square in mm round the middle of a box. */
function place(volume: Volume, box: Box): Part {
  const { dx, dy } = pixelSize(volume);
  const side = closeUp(volume, box);
  const columns = Math.round(side / dx);
  const rows = Math.round(side / dy);
  const left = Math.round((box.x0 + box.x1 - columns + 1) / 2);
  return { left, top: Math.round((box.y0 + box.y1 - rows + 1) / 2), rows, columns };
}
