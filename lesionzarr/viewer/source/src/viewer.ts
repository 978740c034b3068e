/** One lesion in its volume: slices, window and marks. */

import type { Catalog, Lesion } from "./catalog";
import { figure, find, make } from "./dom";
import { boxOn, drawMarks, drawOutlines, extent, paintMask } from "./marks";
import { Stage, type Framing } from "./stage";
import type { Slice, VolumeReader } from "./volume";
import { paint, presetNamed, presetsFor, type Window } from "./windows";

/** Name of the window that the source gives for each lesion. */
const OWN = "own";
const CUSTOM = "custom";
const FALLBACK = "soft-tissue";
/** Part of the window's width that a drag over one pixel of the screen is worth, and the least of it. */
const DRAG = 1 / 250;
const LEAST_WIDTH = 1e-3;
/** Slices of a chunk, and how long a slice must stand before its neighbours are read. */
const AHEAD = 8;
const IDLE_MS = 250;

interface Opened {
  lesion: Lesion;
  reader: VolumeReader;
}

export class Viewer {
  private readonly stage: Stage;
  private readonly slider = find<HTMLInputElement>("slider");
  private opened: Opened | null = null;
  private z = 0;
  private shown: (Slice & { z: number }) | null = null;
  private windowName = OWN;
  private window: Window = { low: 0, high: 1 };
  private framing: Framing = "slice";
  private loading: VolumeReader | null = null;
  private idle = 0;
  private at: { x: number; y: number } | null = null;
  private readonly wanted = { box: true, recist: true, mask: true };

  constructor(
    private readonly catalog: Catalog,
    private readonly fail: (error: unknown) => void,
  ) {
    this.stage = new Stage({
      scroll: (slices) => this.scroll(slices),
      window: (right, down) => this.drag(right, down),
      hover: (at) => {
        this.at = at;
        this.showValue();
      },
    });
    this.slider.addEventListener("input", () => this.goTo(Number(this.slider.value)));
    for (const name of ["box", "recist", "mask"] as const) {
      find(`show-${name}`).addEventListener("click", () => this.toggle(name));
    }
    for (const framing of ["slice", "lesion"] as const) {
      find(`frame-${framing}`).addEventListener("click", () => this.setFraming(framing));
    }
  }

  /** Opens a lesion on its key slice. */
  open(lesion: Lesion, reader: VolumeReader): void {
    const { volume } = reader;
    if (this.opened?.reader.volume !== volume) {
      this.stage.setVolume(volume);
      this.shown = null;
    }
    this.opened = { lesion, reader };
    this.slider.max = String(volume.shape[0] - 1);
    this.makePresets();
    this.chooseWindow(this.windowName === CUSTOM ? CUSTOM : this.windowName);
    this.setFraming(this.framing);
    this.showExtent();
    find<HTMLButtonElement>("show-mask").disabled = !volume.mask;
    find<HTMLButtonElement>("show-recist").disabled = !lesion.recist;
    this.goTo(this.keySlice);
  }

  /** The slice that a lesion is opened on: that of its mark, or the middle of its extent, or of the volume. */
  get keySlice(): number {
    const { lesion, reader } = this.opened!;
    const middle = lesion.z0 !== null && lesion.z1 !== null ? (lesion.z0 + lesion.z1) / 2 : (reader.volume.shape[0] - 1) / 2;
    return lesion.keyZ ?? Math.round(middle);
  }

  scroll(slices: number): void {
    this.goTo(this.z + slices);
  }

  goTo(z: number): void {
    if (!this.opened) return;
    const { volume } = this.opened.reader;
    this.z = Math.min(Math.max(z, 0), volume.shape[0] - 1);
    this.slider.value = String(this.z);
    const dz = volume.spacing[0];
    const place = dz === null || dz === undefined ? "" : `, ${figure(this.z * dz)} mm`;
    find("where").textContent = `slice ${this.z + 1} / ${volume.shape[0]}${place}`;
    this.slider.setAttribute("aria-valuetext", `slice ${this.z + 1} of ${volume.shape[0]}`);
    const there = this.opened.reader.peek(this.z);
    if (there) this.show(there);
    else void this.load();
  }

  zoom(factor: number): void {
    if (!this.opened) return;
    this.stage.zoom(factor);
    this.pressFraming(null);
  }

  toggleFraming(): void {
    this.setFraming(this.framing === "slice" ? "lesion" : "slice");
  }

  toggle(name: "box" | "recist" | "mask"): void {
    this.wanted[name] = !this.wanted[name];
    find(`show-${name}`).setAttribute("aria-pressed", String(this.wanted[name]));
    if (this.shown) this.show(this.shown);
  }

  /** Takes the window of a button, counted from 1. */
  pressPreset(number: number): void {
    find("presets").querySelectorAll<HTMLButtonElement>("button")[number - 1]?.click();
  }

  private setFraming(framing: Framing): void {
    this.framing = framing;
    this.pressFraming(framing);
    const { lesion } = this.opened ?? {};
    this.stage.frame(framing, lesion ? (boxOn(lesion, this.keySlice) ?? lesion.box) : null);
  }

  private pressFraming(framing: Framing | null): void {
    for (const name of ["slice", "lesion"]) find(`frame-${name}`).setAttribute("aria-pressed", String(name === framing));
  }

  /** Reads the slice that is wanted, and goes on while another one is wanted when it is there. */
  private async load(): Promise<void> {
    const { reader } = this.opened!;
    if (this.loading === reader) return;
    this.loading = reader;
    find("stage").classList.add("loading");
    for (let done = false; !done; ) {
      const { z } = this;
      const wanted = () => this.opened!.reader === reader && this.z === z;
      try {
        const slice = await reader.slice(z);
        if (wanted()) this.show(slice);
      } catch (error) {
        if (wanted()) this.fail(error);
      }
      done = wanted() || this.opened!.reader !== reader;
    }
    if (this.loading !== reader) return;
    this.loading = null;
    find("stage").classList.remove("loading");
  }

  private show(slice: Slice): void {
    const { lesion, reader } = this.opened!;
    const { volume } = reader;
    const [slices, rows, columns] = volume.shape;
    this.shown = { ...slice, z: this.z };
    const image = new ImageData(columns, rows);
    paint(slice.voxels, this.window, volume.factor, image.data);
    this.stage.canvas.getContext("2d")!.putImageData(image, 0, 0);
    this.stage.canvas.dataset.z = String(this.z);
    this.stage.canvas.dataset.lesion = lesion.id;
    this.stage.canvas.setAttribute("aria-label", `slice ${this.z + 1} of ${slices} of volume ${volume.id}`);
    const others = (this.catalog.byVolume.get(volume.id) ?? []).filter((one) => one !== lesion);
    drawMarks(this.stage.marks, lesion, this.z, others, this.wanted);
    this.showMask(slice, columns, rows);
    this.showValue();
    this.readAhead(reader);
  }

  private showMask(slice: Slice, columns: number, rows: number): void {
    const context = this.stage.mask.getContext("2d")!;
    if (!slice.labels || !this.wanted.mask) {
      context.clearRect(0, 0, columns, rows);
      return;
    }
    const image = new ImageData(columns, rows);
    const { maskLabel } = this.opened!.lesion;
    paintMask(slice.labels, maskLabel, image.data);
    context.putImageData(image, 0, 0);
    drawOutlines(this.stage.marks, slice.labels, columns, maskLabel);
  }

  /** Reads the chunks above and below when nothing else is asked for, so that scrolling finds them. */
  private readAhead(reader: VolumeReader): void {
    clearTimeout(this.idle);
    this.idle = setTimeout(() => {
      for (const z of [this.z + AHEAD, this.z - AHEAD]) {
        if (z >= 0 && z < reader.volume.shape[0]) reader.slice(z).catch(() => undefined);
      }
    }, IDLE_MS);
  }

  private makePresets(): void {
    const { lesion, reader } = this.opened!;
    const items: { name: string; title: string; window: Window | null }[] = [
      { name: OWN, title: "own", window: lesion.window },
      ...presetsFor(reader.volume.unit).map((preset) => ({ name: preset.name, title: preset.name, window: preset })),
    ];
    const buttons = items.map(({ name, title, window }, place) => {
      const range = window ? `${window.low} to ${window.high} ${reader.volume.unit}` : "the source gives none";
      const button = make(
        "button",
        { type: "button", "data-window": name, "data-low": window?.low ?? null, "data-high": window?.high ?? null, title: `${name === OWN ? "the lesion's own window" : title}: ${range} (key ${place + 1})` },
        title,
      );
      button.disabled = !window;
      button.addEventListener("click", () => this.chooseWindow(name));
      return button;
    });
    find("presets").replaceChildren(...buttons);
  }

  private chooseWindow(name: string): void {
    const { lesion, reader } = this.opened!;
    this.windowName = name;
    if (name === OWN && lesion.window) this.setWindow(lesion.window, OWN);
    else if (name === CUSTOM) this.setWindow(this.window, CUSTOM);
    else {
      const preset = presetNamed(name === OWN ? FALLBACK : name, reader.volume.unit);
      this.setWindow(preset, preset.name);
    }
  }

  private setWindow({ low, high }: Window, name: string): void {
    this.window = { low, high };
    for (const button of find("presets").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.window === name));
    }
    const digits = high - low < 20 ? 1 : 0;
    const { unit } = this.opened!.reader.volume;
    find("window").textContent = `W ${figure(high - low, digits)}  L ${figure((low + high) / 2, digits)} ${unit}`;
    if (this.shown) this.show(this.shown);
  }

  /** Widens by a drag to the right, and raises the level by one downwards. */
  private drag(right: number, down: number): void {
    if (!this.opened || (!right && !down)) return;
    const width = this.window.high - this.window.low;
    const wider = Math.max(width * (1 + right * DRAG), LEAST_WIDTH);
    const level = (this.window.low + this.window.high) / 2 + down * width * DRAG;
    this.windowName = CUSTOM;
    this.setWindow({ low: level - wider / 2, high: level + wider / 2 }, CUSTOM);
  }

  private showExtent(): void {
    const { lesion, reader } = this.opened!;
    const last = Math.max(reader.volume.shape[0] - 1, 1);
    const [from, to] = extent(lesion);
    const bar = find("extent");
    bar.hidden = from === null || to === null;
    bar.style.setProperty("--from", String((from ?? 0) / last));
    bar.style.setProperty("--to", String((to ?? 0) / last));
    const key = find("key");
    key.hidden = lesion.keyZ === null;
    key.style.setProperty("--from", String((lesion.keyZ ?? 0) / last));
  }

  private showValue(): void {
    const value = find("value");
    if (!this.at || !this.shown || !this.opened) {
      value.textContent = "";
      return;
    }
    const { volume } = this.opened.reader;
    const { x, y } = this.at;
    const stored = this.shown.voxels[y * volume.shape[2] + x]! * volume.factor;
    value.textContent = `x ${x}  y ${y}  ${figure(stored, volume.unit === "SUV" ? 2 : 0)} ${volume.unit}`;
  }
}
