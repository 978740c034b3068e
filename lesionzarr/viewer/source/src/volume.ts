/** Voxels of a volume: slices by slabs of one chunk each, and the pixels round a lesion. */

import { get, open, root, slice, UnknownCodecError, type Array as ZarrArray, type AsyncReadable } from "zarrita";
import type { Volume } from "./catalog";
import { Fault } from "./store";

export type Voxels = Int16Array | Float32Array;
type Labels = Uint8Array | Uint16Array;

/** Slabs that a volume keeps: 0.2 GB of slices of 512 x 512. */
const KEPT = 48;

export interface Slice {
  voxels: Voxels;
  /** Value of the mask at each pixel; null where the volume has no mask. */
  labels: Labels | null;
}

interface Slab {
  first: number;
  voxels: Voxels;
  labels: Labels | null;
}

/** Reads one volume. What was read stays, up to a limit. */
export class VolumeReader {
  private readonly slabs = new Map<number, Promise<Slab>>();
  private readonly ready = new Map<number, Slab>();
  private readonly arrays: Promise<[ZarrArray<any>, ZarrArray<any> | null]>;

  constructor(store: AsyncReadable, readonly volume: Volume) {
    this.arrays = Promise.all([openArray(store, volume.array), volume.mask ? openArray(store, volume.mask) : null]);
    // told by whoever asks for voxels first
    this.arrays.catch(() => undefined);
  }

  /** Gives a slice if it is there already. */
  peek(z: number): Slice | null {
    const slab = [...this.ready.values()].find((one) => z >= one.first && z < one.first + this.depth(one));
    return slab ? this.cut(slab, z) : null;
  }

  /** Reads a slice, and those of the same chunk with it. */
  async slice(z: number): Promise<Slice> {
    const [array] = await this.arrays;
    const number = Math.floor(z / array.chunks[0]!);
    let slab = this.slabs.get(number);
    if (!slab) {
      slab = this.readSlab(number);
      this.slabs.set(number, slab);
      slab.catch(() => this.slabs.delete(number));
    }
    return this.cut(await slab, z);
  }

  /** Reads rows `y0` ... `y1` and columns `x0` ... `x1` (half-open) of a slice. */
  async crop(z: number, y0: number, y1: number, x0: number, x1: number): Promise<Voxels> {
    const [array] = await this.arrays;
    return (await read(array, [z, slice(y0, y1), slice(x0, x1)])) as Voxels;
  }

  private async readSlab(number: number): Promise<Slab> {
    const [array, mask] = await this.arrays;
    const depth = array.chunks[0]!;
    const place = [slice(number * depth, Math.min((number + 1) * depth, array.shape[0]!)), null, null];
    const [voxels, labels] = await Promise.all([read(array, place), mask ? read(mask, place) : null]);
    const slab = { first: number * depth, voxels: voxels as Voxels, labels: labels as Labels | null };
    this.ready.set(number, slab);
    const oldest = [...this.ready.keys()].slice(0, -KEPT);
    for (const key of oldest) {
      this.ready.delete(key);
      this.slabs.delete(key);
    }
    return slab;
  }

  private depth(slab: Slab): number {
    return slab.voxels.length / this.pixels;
  }

  private get pixels(): number {
    return this.volume.shape[1] * this.volume.shape[2];
  }

  private cut(slab: Slab, z: number): Slice {
    const start = (z - slab.first) * this.pixels;
    const end = start + this.pixels;
    return { voxels: slab.voxels.subarray(start, end), labels: slab.labels?.subarray(start, end) ?? null };
  }
}

async function openArray(store: AsyncReadable, path: string): Promise<ZarrArray<any>> {
  return (await open.v3(root(store).resolve(path), { kind: "array" })) as ZarrArray<any>;
}

async function read(array: ZarrArray<any>, place: (number | null | ReturnType<typeof slice>)[]): Promise<unknown> {
  try {
    return (await get(array, place)).data;
  } catch (error) {
    throw explain(error, array.path);
  }
}

function explain(error: unknown, path: string): unknown {
  if (error instanceof UnknownCodecError) {
    return new Fault(`${path.slice(1)}: browsers cannot read codec ${error.codec}; convert with --profile portable`);
  }
  // a codec's own error is wrapped in one of the pipeline
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return new Fault(`${path.slice(1)}: ${cause instanceof Error ? cause.message : cause}`);
}
