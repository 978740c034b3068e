/** Grey-level windows: a range of values that is mapped to black ... white, as `lesionzarr.window` does. */

export interface Window {
  low: number;
  high: number;
}

export interface Preset extends Window {
  name: string;
}

/** Those of `lesionzarr.window.PRESETS` that differ, in HU. */
const CT: Preset[] = [
  { name: "soft-tissue", low: -175, high: 275 },
  { name: "lung", low: -1400, high: 0 },
  { name: "mediastinum", low: -135, high: 215 },
  { name: "bone", low: -100, high: 900 },
  { name: "brain", low: 0, high: 100 },
  { name: "full", low: -1024, high: 3071 },
];
const SUV: Preset[] = [5, 7, 10, 15, 20].map((high) => ({ name: `SUV ${high}`, low: 0, high }));
const ACTIVITY: Preset[] = [10, 25, 50, 100].map((kilo) => ({ name: `${kilo} kBq/ml`, low: 0, high: kilo * 1000 }));

export function presetsFor(unit: string): Preset[] {
  return { HU: CT, SUV }[unit] ?? ACTIVITY;
}

/** The window of that name, or the first where the unit has none such. */
export function presetNamed(name: string, unit: string): Preset {
  const presets = presetsFor(unit);
  return presets.find((preset) => preset.name === name) ?? presets[0]!;
}

function level(value: number, { low, high }: Window): number {
  // in the order of the definition, so that rounding is the same
  return Math.floor(Math.min(Math.max((value - low) / (high - low), 0), 1) * 255);
}

const table = new Uint8ClampedArray(65536);
let tableOf: Window = { low: 0, high: 0 };

/** Writes a slice as grey RGBA; `factor` turns stored values into the unit of the window. */
export function paint(values: Int16Array | Float32Array, window: Window, factor: number, out: Uint8ClampedArray): void {
  if (values instanceof Float32Array) {
    for (let i = 0; i < values.length; i++) put(out, i, level(values[i]! * factor, window));
    return;
  }
  if (tableOf.low !== window.low || tableOf.high !== window.high) {
    for (let value = -32768; value < 32768; value++) table[value & 65535] = level(value, window);
    tableOf = { ...window };
  }
  for (let i = 0; i < values.length; i++) put(out, i, table[values[i]! & 65535]!);
}

function put(out: Uint8ClampedArray, i: number, grey: number): void {
  out[4 * i] = out[4 * i + 1] = out[4 * i + 2] = grey;
  out[4 * i + 3] = 255;
}
