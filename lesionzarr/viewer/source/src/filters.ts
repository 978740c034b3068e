/** Which lesions are shown, and in which order. */

import type { Lesion } from "./catalog";

export interface Filter {
  /** Words that must all occur in ids, type, date or labels. */
  text: string;
  /** Empty for all; UNKNOWN for those without. */
  type: string;
  split: string;
  /** Long axis in mm; null for no limit. */
  least: number | null;
  most: number | null;
}

export type Column = "id" | "type" | "longMm" | "shortMm" | "split";

export interface Order {
  /** Null for the order of the source. */
  column: Column | null;
  down: boolean;
}

export const UNKNOWN = "(unknown)";

export function choose(lesions: Lesion[], filter: Filter, order: Order): Lesion[] {
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = lesions.filter(
    (lesion) =>
      words.every((word) => lesion.words.includes(word)) &&
      is(lesion.type, filter.type) &&
      is(lesion.split, filter.split) &&
      (filter.least === null || (lesion.longMm !== null && lesion.longMm >= filter.least)) &&
      (filter.most === null || (lesion.longMm !== null && lesion.longMm <= filter.most)),
  );
  const { column } = order;
  if (column) chosen.sort((a, b) => compare(a[column], b[column], order.down));
  return chosen;
}

/** Counts the values of a column, the most frequent first; what has none is counted under UNKNOWN. */
export function count(lesions: Lesion[], column: "type" | "split"): [string, number][] {
  const counts = new Map<string, number>();
  for (const lesion of lesions) {
    const value = lesion[column] ?? UNKNOWN;
    counts.set(value, (counts.get(value) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1]);
}

function is(value: string | null, wanted: string): boolean {
  return wanted === "" || (value ?? UNKNOWN) === wanted;
}

function compare(a: string | number | null, b: string | number | null, down: boolean): number {
  // what is missing comes last both ways
  if (a === null || b === null) return Number(a === null) - Number(b === null);
  const sign = down ? -1 : 1;
  return a < b ? -sign : a > b ? sign : 0;
}
