/** Marks of lesions in the pixels of their slice: box, RECIST axes and mask. */

import type { Box, Lesion, Volume } from "./catalog";
import { draw } from "./dom";

const OWN: [number, number, number] = [110, 231, 183];
const OTHER: [number, number, number] = [148, 163, 184];
const TINT = 64;
/** Width of a close-up in mm, at least, and as a multiple of the lesion. */
const CLOSE_MM = 64;
const CLOSE_TIMES = 2.5;

/** The box of a lesion on a slice: the slice's own, or that of all its slices; null where it does not reach. */
export function boxOn(lesion: Lesion, z: number): Box | null {
  const own = lesion.sliceBoxes.get(z);
  if (own || lesion.sliceBoxes.size) return own ?? null;
  const [first, last] = extent(lesion);
  return first !== null && last !== null && z >= first && z <= last ? lesion.box : null;
}

/** Size of a pixel in mm; 1 where that is unknown. */
export function pixelSize({ spacing }: Volume): { dx: number; dy: number } {
  return { dx: spacing[2] ?? 1, dy: spacing[1] ?? 1 };
}

/** Side in mm of a square that shows a lesion and what is round it. */
export function closeUp(volume: Volume, { x0, y0, x1, y1 }: Box): number {
  const { dx, dy } = pixelSize(volume);
  return Math.max(CLOSE_MM, CLOSE_TIMES * Math.max((x1 - x0) * dx, (y1 - y0) * dy));
}

/** First and last slice of a lesion; those of its mark where the source gives no extent along z. */
export function extent(lesion: Lesion): [number | null, number | null] {
  if (lesion.z0 === null || lesion.z1 === null) return [lesion.keyZ, lesion.keyZ];
  return [Math.ceil(lesion.z0), Math.floor(lesion.z1)];
}

/** Puts the marks of a lesion on a slice into an SVG whose units are pixels of the slice. */
export function drawMarks(svg: SVGElement, lesion: Lesion, z: number, others: Lesion[], wanted: { box: boolean; recist: boolean }): void {
  const shapes: SVGElement[] = [];
  if (wanted.box) {
    for (const other of others) {
      const box = boxOn(other, z);
      if (box) shapes.push(frame(box, "other", other));
    }
    const box = boxOn(lesion, z);
    if (box) shapes.push(frame(box, z === lesion.keyZ ? "box" : "box away", lesion));
  }
  if (wanted.recist && lesion.recist && z === lesion.keyZ) {
    const [x0, y0, x1, y1, x2, y2, x3, y3] = lesion.recist as [number, number, number, number, number, number, number, number];
    shapes.push(draw("line", { class: "long", x1: x0, y1: y0, x2: x1, y2: y1 }, draw("title", {}, "long axis")));
    shapes.push(draw("line", { class: "short", x1: x2, y1: y2, x2: x3, y2: y3 }, draw("title", {}, "short axis")));
  }
  svg.replaceChildren(...shapes);
}

function frame({ x0, y0, x1, y1 }: Box, kind: string, lesion: Lesion): SVGElement {
  // the ends of a box are centres of pixels that are inside of it
  const place = { x: x0 - 0.5, y: y0 - 0.5, width: x1 - x0 + 1, height: y1 - y0 + 1 };
  return draw("rect", { class: kind, "data-lesion": lesion.id, ...place }, draw("title", {}, lesion.id));
}

/** Tints the labels of a slice: this lesion's in one colour, all others in another. */
export function paintMask(labels: ArrayLike<number>, own: number | null, out: Uint8ClampedArray): void {
  for (let i = 0; i < labels.length; i++) {
    const label = labels[i]!;
    if (!label) continue;
    out.set(label === own ? OWN : OTHER, 4 * i);
    out[4 * i + 3] = TINT;
  }
}

/** Draws the outlines of the labels of a slice, along the edges of its pixels. */
export function drawOutlines(svg: SVGElement, labels: ArrayLike<number>, columns: number, own: number | null): void {
  const paths = { own: "", other: "" };
  for (let i = 0; i < labels.length; i++) {
    const label = labels[i]!;
    if (!label) continue;
    const x = (i % columns) - 0.5;
    const y = Math.floor(i / columns) - 0.5;
    let edges = "";
    if (labels[i - columns] !== label) edges += `M${x} ${y}h1`;
    if (labels[i + columns] !== label) edges += `M${x} ${y + 1}h1`;
    if (i % columns === 0 || labels[i - 1] !== label) edges += `M${x} ${y}v1`;
    if ((i + 1) % columns === 0 || labels[i + 1] !== label) edges += `M${x + 1} ${y}v1`;
    paths[label === own ? "own" : "other"] += edges;
  }
  for (const [name, d] of Object.entries(paths)) if (d) svg.prepend(draw("path", { class: `outline ${name}`, d }));
}
