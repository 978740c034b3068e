/** Bytes of a store over HTTP: whole objects and ranges, with no listing, and every fault in one line. */

import { decompress } from "fzstd";
import { registry, withRangeCoalescing, type AsyncReadable } from "zarrita";

/** What is wrong with a store, in words for the one who looks at it. */
export class Fault extends Error {}

type Range = { offset: number; length: number } | { suffixLength: number };

/** Reads the objects of one store. Metadata that the catalog knows is given to it, and is not asked for again. */
export class HttpStore implements AsyncReadable {
  private readonly known = new Map<string, Uint8Array>();

  constructor(readonly url: URL) {
    if (!url.pathname.endsWith("/")) url.pathname += "/";
  }

  /** Tells the content of an object beforehand. */
  know(key: string, text: string): void {
    this.known.set(key, new TextEncoder().encode(text));
  }

  /** Reads an object whole; undefined if there is none. */
  async get(key: string): Promise<Uint8Array | undefined> {
    const known = this.known.get(key);
    if (known) return known;
    const response = await this.fetch(key);
    return response && new Uint8Array(await response.arrayBuffer());
  }

  /** Reads an object whole as it is now, whatever the browser has kept of it; undefined if there is none. */
  async getNow(key: string): Promise<Uint8Array | undefined> {
    const response = await this.fetch(key, {}, "no-cache");
    return response && new Uint8Array(await response.arrayBuffer());
  }

  /** Reads a part of a shard, which must be there: a missing one is damage, never padding. */
  async getRange(key: string, range: Range): Promise<Uint8Array> {
    const last = "offset" in range ? range.offset + range.length - 1 : 0;
    const text = "offset" in range ? `${range.offset}-${last}` : `-${range.suffixLength}`;
    const response = await this.fetch(key, { Range: `bytes=${text}` });
    if (!response) throw new Fault(`${this.name(key)} is missing; convert the volume again`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    if (response.status === 206) return bytes;
    // the server knows no ranges, and sent everything
    return "offset" in range ? bytes.subarray(range.offset, last + 1) : bytes.subarray(-range.suffixLength);
  }

  name(key: string): string {
    return `${decodeURI(this.url.pathname).split("/").at(-2) ?? ""}${key}`;
  }

  private async fetch(key: string, headers: Record<string, string> = {}, cache: RequestCache = "default"): Promise<Response | undefined> {
    const url = new URL(key.slice(1), this.url);
    // a signature in the query is that of every object
    url.search = this.url.search;
    let response: Response;
    try {
      response = await fetch(url, { headers, cache });
    } catch {
      const remedy = url.origin === location.origin ? "is the server running?" : `is it up, and does it allow ${location.origin} by CORS?`;
      throw new Fault(`${url.origin} cannot be reached; ${remedy}`);
    }
    // a bucket that may not be listed answers 403 for what is not there
    if (response.status === 404 || response.status === 403) return undefined;
    if (!response.ok) throw new Fault(`${this.name(key)}: the server answers ${response.status} ${response.statusText}`);
    return response;
  }
}

/** Makes the store merge ranges that lie close, as the chunks of a slice do. */
export function merging(store: HttpStore): AsyncReadable {
  return withRangeCoalescing(store, { coalesceSize: 65536 });
}

const CRC32C = new Uint32Array(256).map((_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

function checksum(bytes: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of bytes) value = (value >>> 8) ^ CRC32C[(value ^ byte) & 255]!;
  return ~value >>> 0;
}

function unchecked(bytes: Uint8Array): Uint8Array {
  const content = bytes.subarray(0, -4);
  const stored = new DataView(bytes.buffer, bytes.byteOffset + content.length, 4).getUint32(0, true);
  if (checksum(content) !== stored) throw new Fault("a chunk is damaged (its CRC-32C differs); convert the volume again");
  return content;
}

function readOnly(): never {
  throw new Error("stores are only read");
}

/** Chooses the codecs: those of a store's profiles, zstd without a second decoder, and checksums that are looked at. */
export function registerCodecs(): void {
  for (const name of registry.keys()) if (name !== "blosc" && name !== "bytes") registry.delete(name);
  const crc32c = { kind: "bytes_to_bytes" as const, encode: readOnly, decode: unchecked, computeEncodedSize: (size: number) => size + 4 };
  registry.set("crc32c", async () => ({ kind: "bytes_to_bytes", fromConfig: () => crc32c }));
  const zstd = { kind: "bytes_to_bytes" as const, encode: readOnly, decode: (bytes: Uint8Array) => decompress(bytes) };
  registry.set("zstd", async () => ({ kind: "bytes_to_bytes", fromConfig: () => zstd }));
}
