/** Marks of lesions in the pixels of their slice: box, RECIST axes and mask. */

import type { Box, Lesion } from "./catalog";
import { draw } from "./dom";

const OWN: [number, number, number] = [110, 231, 183];
const OTHER: [number, number, number] = [148, 163, 184];

/** The box of a lesion on a slice: the slice's own, or that of all its slices; null where it does not reach. */
export function boxOn(lesion: Lesion, z: number): Box | null {
  const own = lesion.sliceBoxes.get(z);
  if (own || lesion.sliceBoxes.size) return own ?? null;
  const [first, last] = extent(lesion);
  return first !== null && last !== null && z >= first && z <= last ? lesion.box : null;
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
  const place = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
  return draw("rect", { class: kind, "data-lesion": lesion.id, ...place }, draw("title", {}, lesion.id));
}

/** Paints the labels of a slice: this lesion's in one colour, all others in another, each with its outline. */
export function paintMask(labels: ArrayLike<number>, columns: number, own: number | null, out: Uint8ClampedArray): void {
  out.fill(0);
  for (let i = 0; i < labels.length; i++) {
    const label = labels[i]!;
    if (!label) continue;
    const x = i % columns;
    const inside =
      labels[i - columns] === label &&
      labels[i + columns] === label &&
      (x === 0 || labels[i - 1] === label) &&
      (x === columns - 1 || labels[i + 1] === label);
    out.set(label === own ? OWN : OTHER, 4 * i);
    out[4 * i + 3] = inside ? 70 : 200;
  }
}
