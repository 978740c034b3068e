/** The catalog of a store: the same tables that `lesionzarr.open` reads, and no listing of anything. */

import { decompress } from "fzstd";
import { parquetReadObjects } from "hyparquet";
import { Fault, type HttpStore } from "./store";
import type { Window } from "./windows";

const FORMAT = 1;
/** Array of a volume's voxels, and what it holds, by DICOM's word for the modality. */
const KINDS: Record<string, { array: string; unit: string }> = {
  CT: { array: "hu", unit: "HU" },
  PT: { array: "activity", unit: "Bq/ml" },
};

export interface Box {
  x0: number;
  y0: number;
  x1: number;
  y1: number;
}

/** One row of the lesion table. Indices are 0-based, pixel centres lie on whole numbers, box ends are inclusive. */
export interface Lesion {
  id: string;
  volumeId: string;
  patientId: string | null;
  studyId: string | null;
  seriesId: string | null;
  /** 0-based slice that the mark was drawn on; null when it is not in the volume. */
  keyZ: number | null;
  keySlice: string | null;
  box: Box | null;
  z0: number | null;
  z1: number | null;
  /** x, y of both ends of the long axis, then of the short one. */
  recist: number[] | null;
  longMm: number | null;
  shortMm: number | null;
  maskLabel: number | null;
  type: string | null;
  labels: string[];
  split: string | null;
  window: Window | null;
  noisy: boolean | null;
  sex: string | null;
  age: number | null;
  timepoint: number | null;
  studyDate: string | null;
  derived: string[];
  /** Boxes of single slices, by slice, where the source has them. */
  sliceBoxes: Map<number, Box>;
  /** What the text filter looks at, in small letters. */
  words: string;
}

export interface Volume {
  id: string;
  /** Slices, rows, columns. */
  shape: [number, number, number];
  /** In mm, in the order of the shape; null where unknown. */
  spacing: (number | null)[];
  /** Words of RFC-4, such as `right-to-left`, in the order of the shape. */
  orientation: string[] | null;
  /** Path of the voxels in the store, and of the mask where there is one. */
  array: string;
  mask: string | null;
  unit: string;
  /** What stored values are multiplied with to be of that unit. */
  factor: number;
  description: string | null;
  kernel: string | null;
}

export interface Catalog {
  title: string;
  lesions: Lesion[];
  byId: Map<string, Lesion>;
  byVolume: Map<string, Lesion[]>;
  volumes: Map<string, Volume>;
}

type Row = Record<string, unknown>;

/** Opens the catalog of a store. */
export async function openCatalog(store: HttpStore): Promise<Catalog> {
  const title = await readTitle(store);
  const [lesionRows, volumeRows] = await readTables(store);
  const lesions = lesionRows.map(toLesion);
  return {
    title,
    lesions,
    byId: new Map(lesions.map((lesion) => [lesion.id, lesion])),
    byVolume: group(lesions),
    volumes: new Map(volumeRows.map((row) => [String(row.volume_id), toVolume(store, row)])),
  };
}

async function readTitle(store: HttpStore): Promise<string> {
  const bytes = await store.get("/zarr.json");
  if (!bytes) throw new Fault(`no store at ${store.url.href} (no zarr.json there, or it may not be read)`);
  let own: { format?: number; kind?: string; title?: string } | undefined;
  try {
    own = JSON.parse(new TextDecoder().decode(bytes)).attributes?.lesionzarr;
  } catch {
    throw new Fault(`${store.url.href}zarr.json is no JSON; the address is not that of a store`);
  }
  if (!own?.format) throw new Fault(`${store.url.href} is a Zarr group, but no lesionzarr store`);
  if (own.kind === "pack") throw new Fault(`${store.url.href} is a pack; name the store that it was made of`);
  if (own.format !== FORMAT) throw new Fault(`store format ${own.format}; this page reads ${FORMAT}: take that of a newer lesionzarr`);
  return own.title ?? "lesions";
}

/** Reads the tables of lesions and volumes; others where those are replaced meanwhile. */
async function readTables(store: HttpStore): Promise<[Row[], Row[]]> {
  const keys = await tableKeys(store);
  try {
    return await Promise.all([readTable(store, keys.lesions), readTable(store, keys.volumes)]);
  } catch (error) {
    const now = await tableKeys(store);
    if (now.lesions === keys.lesions) throw error;
    return Promise.all([readTable(store, now.lesions), readTable(store, now.volumes)]);
  }
}

/** Where the tables are: what `catalog/tables.json` names, which stores of the first versions do not have. */
async function tableKeys(store: HttpStore): Promise<{ lesions: string; volumes: string }> {
  const bytes = await store.getNow("/catalog/tables.json");
  if (!bytes) return { lesions: "/catalog/lesions.parquet", volumes: "/catalog/volumes.parquet" };
  try {
    const named = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, string>;
    for (const key of [named.lesions, named.volumes]) {
      if (!/^catalog\/\d+-[0-9a-f]+\/\w+\.parquet$/.test(key ?? "")) throw new Error(key);
    }
    return { lesions: `/${named.lesions}`, volumes: `/${named.volumes}` };
  } catch {
    throw new Fault(`${store.name("/catalog/tables.json")} is damaged; run \`lesionzarr index\``);
  }
}

async function readTable(store: HttpStore, key: string): Promise<Row[]> {
  const bytes = await store.get(key);
  if (!bytes) throw new Fault(`${store.name(key)} is missing; end the conversion, or run \`lesionzarr index\``);
  // a copy, since the bytes may be a part of a larger buffer
  const file = bytes.slice().buffer;
  const compressors = { ZSTD: (input: Uint8Array, length: number) => decompress(input, new Uint8Array(length)) };
  try {
    return await parquetReadObjects({ file, compressors });
  } catch (error) {
    throw new Fault(`${store.name(key)} is damaged (${error instanceof Error ? error.message : error}); run \`lesionzarr index\``);
  }
}

function toLesion(row: Row): Lesion {
  const [x0, y0, x1, y1] = ["x0", "y0", "x1", "y1"].map((name) => number(row[name])) as [number, number, number, number];
  const low = number(row.window_low);
  const high = number(row.window_high);
  const labels = list(row.labels).map(String);
  const recist = list(row.recist).map(Number);
  const keyZ = number(row.key_z);
  const names = [row.lesion_id, row.volume_id, row.patient_id, row.study_id, row.type, row.study_date, ...labels];
  return {
    id: String(row.lesion_id),
    volumeId: String(row.volume_id),
    patientId: text(row.patient_id),
    studyId: text(row.study_id),
    seriesId: text(row.series_id),
    keyZ,
    keySlice: text(row.key_slice),
    box: [x0, y0, x1, y1].includes(null as never) ? null : { x0, y0, x1, y1 },
    z0: number(row.z0),
    z1: number(row.z1),
    recist: recist.length === 8 ? recist : null,
    longMm: number(row.long_mm),
    shortMm: number(row.short_mm),
    maskLabel: number(row.mask_label),
    type: text(row.type),
    labels,
    split: text(row.split),
    window: low === null || high === null ? null : { low, high },
    noisy: typeof row.noisy === "boolean" ? row.noisy : null,
    sex: text(row.sex),
    age: number(row.age),
    timepoint: number(row.timepoint),
    studyDate: text(row.study_date),
    derived: list(row.derived).map(String),
    sliceBoxes: sliceBoxes(text(row.extra)),
    words: names.filter(Boolean).join(" ").toLowerCase(),
  };
}

function sliceBoxes(extra: string | null): Map<number, Box> {
  // most sources have none, and 32,735 rows are parsed quicker without
  if (!extra?.includes('"slice_boxes"')) return new Map();
  const rows = JSON.parse(extra).slice_boxes as [number, number, number, number, number][];
  return new Map(rows.map(([z, x0, y0, x1, y1]) => [z, { x0, y0, x1, y1 }]));
}

function toVolume(store: HttpStore, row: Row): Volume {
  const id = String(row.volume_id);
  const kind = KINDS[String(row.modality)];
  if (!kind) throw new Fault(`volume ${id} is of modality ${row.modality}, which this page cannot show`);
  const array = `/volumes/${id}/${kind.array}`;
  const mask = text(row.mask_array) === null ? null : `/volumes/${id}/labels/lesions/0`;
  store.know(`${array}/zarr.json`, String(row.array));
  if (mask) store.know(`${mask}/zarr.json`, String(row.mask_array));
  const suv = kind.unit === "HU" ? null : number(JSON.parse(text(row.tags) ?? "{}").SUV?.body_weight);
  return {
    id,
    shape: [Number(row.slices), Number(row.rows), Number(row.columns)],
    spacing: [row.spacing_z_mm, row.spacing_y_mm, row.spacing_x_mm].map(number),
    orientation: list(row.orientation).length ? list(row.orientation).map(String) : null,
    array,
    mask,
    unit: suv === null ? kind.unit : "SUV",
    factor: suv ?? 1,
    description: text(row.description),
    kernel: text(row.kernel),
  };
}

function group(lesions: Lesion[]): Map<string, Lesion[]> {
  const groups = new Map<string, Lesion[]>();
  for (const lesion of lesions) {
    const own = groups.get(lesion.volumeId);
    if (own) own.push(lesion);
    else groups.set(lesion.volumeId, [lesion]);
  }
  return groups;
}

function text(value: unknown): string | null {
  return value === null || value === undefined ? null : String(value);
}

/** Integers of 64 bits come as BigInt, missing ones as null or NaN. */
function number(value: unknown): number | null {
  if (value === null || value === undefined) return null;
  const plain = Number(value);
  return Number.isNaN(plain) ? null : plain;
}

function list(value: unknown): unknown[] {
  return value && typeof value === "object" ? Array.from(value as Iterable<unknown>) : [];
}
