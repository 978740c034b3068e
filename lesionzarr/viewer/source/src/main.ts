/** The page: opens the store, and joins table, gallery and viewer. */

import { openCatalog, type Catalog, type Lesion } from "./catalog";
import { find, make } from "./dom";
import { showFacts } from "./facts";
import { choose, count, UNKNOWN, type Filter, type Order } from "./filters";
import { Gallery } from "./gallery";
import { Fault, HttpStore, merging, registerCodecs } from "./store";
import { LesionTable } from "./table";
import { Viewer } from "./viewer";
import { VolumeReader } from "./volume";

/** The store beside the page, where no other is named by `?store=`. */
const BESIDE = "store/";
/** Volumes whose slices are kept. */
const READERS = 8;

class Page {
  private readonly viewer: Viewer;
  private readonly table: LesionTable;
  private readonly gallery: Gallery;
  private readonly readers = new Map<string, VolumeReader>();
  private filter: Filter = { text: "", type: "", split: "", least: null, most: null };
  private order: Order = { column: null, down: false };
  private chosen: Lesion[] = [];
  private current: Lesion | null = null;

  constructor(
    private readonly catalog: Catalog,
    private readonly store: ReturnType<typeof merging>,
  ) {
    this.viewer = new Viewer(catalog, showFault);
    const open = (lesion: Lesion) => this.link(lesion);
    this.table = new LesionTable(find("table"), open, (order) => {
      this.order = order;
      this.choose();
    });
    this.gallery = new Gallery(find("gallery"), open, (lesion) => this.reader(lesion), showFault);
    this.listenToFilters();
    this.listenToTabs();
    document.addEventListener("keydown", (event) => this.press(event));
    window.addEventListener("hashchange", () => this.follow());
    find("copy").addEventListener("click", () => void copyLink());
  }

  start(): void {
    const { title, lesions, volumes } = this.catalog;
    find("title").textContent = title;
    find("counts").textContent = `${lesions.length.toLocaleString("en")} lesions in ${volumes.size.toLocaleString("en")} volumes`;
    fill(find<HTMLSelectElement>("type"), "all types", count(lesions, "type"));
    fill(find<HTMLSelectElement>("split"), "all splits", count(lesions, "split"));
    this.choose();
    this.follow();
  }

  /** Opens the lesion that the address names, or the first one. */
  private follow(): void {
    const id = new URLSearchParams(location.hash.slice(1)).get("lesion");
    const lesion = id === null ? this.chosen[0] : this.catalog.byId.get(id);
    if (lesion) {
      // without a step to go back to
      history.replaceState(null, "", addressOf(lesion));
      this.open(lesion);
    } else if (id !== null) showFault(new Fault(`no lesion ${id} in this store`));
  }

  /** Opens a lesion through the address, so that it can be sent, and gone back to. */
  private link(lesion: Lesion): void {
    const hash = addressOf(lesion);
    if (location.hash === hash) this.open(lesion);
    else location.hash = hash;
    // in one column the list stands below it
    find("stage").scrollIntoView({ block: "nearest" });
  }

  private open(lesion: Lesion): void {
    hideFault();
    try {
      const reader = this.reader(lesion);
      this.current = lesion;
      this.table.select(lesion);
      this.gallery.select(lesion);
      document.title = `${lesion.id} – ${this.catalog.title}`;
      showFacts(lesion, reader.volume);
      this.viewer.open(lesion, reader);
    } catch (error) {
      showFault(error);
    }
  }

  private reader({ volumeId }: Lesion): VolumeReader {
    const known = this.readers.get(volumeId);
    if (known) {
      // used last, dropped last
      this.readers.delete(volumeId);
      this.readers.set(volumeId, known);
      return known;
    }
    const volume = this.catalog.volumes.get(volumeId);
    if (!volume) throw new Fault(`volume ${volumeId} is not in the catalog; run \`lesionzarr index\``);
    const reader = new VolumeReader(this.store, volume);
    this.readers.set(volumeId, reader);
    const [oldest] = this.readers.keys();
    if (this.readers.size > READERS && oldest !== undefined) this.readers.delete(oldest);
    return reader;
  }

  private choose(): void {
    this.chosen = choose(this.catalog.lesions, this.filter, this.order);
    this.table.show(this.chosen);
    this.gallery.show(this.chosen);
    find("found").textContent = `${this.chosen.length.toLocaleString("en")} shown`;
    find("nothing").hidden = this.chosen.length > 0;
    find("clear").hidden = this.chosen.length === this.catalog.lesions.length;
  }

  private step(by: number): void {
    const place = this.current ? this.chosen.indexOf(this.current) : -1;
    const lesion = this.chosen[place < 0 ? 0 : place + by];
    if (lesion) this.link(lesion);
  }

  private listenToFilters(): void {
    const read = () => {
      const value = (id: string) => find<HTMLInputElement>(id).value;
      const limit = (id: string) => (value(id) === "" ? null : Number(value(id)));
      this.filter = { text: value("text"), type: value("type"), split: value("split"), least: limit("least"), most: limit("most") };
      this.choose();
    };
    find("filters").addEventListener("input", read);
    find("clear").addEventListener("click", () => {
      find<HTMLFormElement>("filters").reset();
      read();
    });
    find("filters").addEventListener("submit", (event) => event.preventDefault());
  }

  private listenToTabs(): void {
    const tabs = ["table", "gallery"];
    for (const name of tabs) {
      find(`tab-${name}`).addEventListener("click", () => {
        for (const other of tabs) {
          find(other).hidden = other !== name;
          find(`tab-${other}`).setAttribute("aria-selected", String(other === name));
        }
        if (this.current) (name === "table" ? this.table : this.gallery).select(this.current);
      });
    }
  }

  private press(event: KeyboardEvent): void {
    const typing = event.target instanceof HTMLSelectElement || (event.target instanceof HTMLInputElement && event.target.type !== "range");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const { viewer } = this;
    const actions: Record<string, () => void> = {
      ArrowUp: () => viewer.scroll(-1),
      ArrowLeft: () => viewer.scroll(-1),
      ArrowDown: () => viewer.scroll(1),
      ArrowRight: () => viewer.scroll(1),
      PageUp: () => viewer.scroll(-8),
      PageDown: () => viewer.scroll(8),
      Home: () => viewer.goTo(0),
      End: () => viewer.goTo(Infinity),
      j: () => this.step(1),
      k: () => this.step(-1),
      " ": () => viewer.goTo(viewer.keySlice),
      f: () => viewer.toggleFraming(),
      b: () => viewer.toggle("box"),
      r: () => viewer.toggle("recist"),
      m: () => viewer.toggle("mask"),
      "+": () => viewer.zoom(1.25),
      "=": () => viewer.zoom(1.25),
      "-": () => viewer.zoom(0.8),
    };
    const action = actions[event.key] ?? (/^[1-9]$/.test(event.key) ? () => viewer.pressPreset(Number(event.key)) : null);
    // a button that has the focus keeps its space bar
    if (!action || !this.current || (event.key === " " && event.target instanceof HTMLButtonElement)) return;
    event.preventDefault();
    action();
  }
}

function addressOf(lesion: Lesion): string {
  return `#lesion=${encodeURIComponent(lesion.id)}`;
}

function fill(select: HTMLSelectElement, all: string, counts: [string, number][]): void {
  const options = counts.map(([value, number]) =>
    make("option", { value }, `${value === UNKNOWN ? "unknown" : value} (${number.toLocaleString("en")})`),
  );
  select.replaceChildren(make("option", { value: "" }, all), ...options);
}

async function copyLink(): Promise<void> {
  try {
    await navigator.clipboard.writeText(location.href);
    find("copied").textContent = "copied";
  } catch {
    find("copied").textContent = "the browser does not allow that; copy the address instead";
  }
  setTimeout(() => (find("copied").textContent = ""), 3000);
}

function showFault(error: unknown): void {
  const line = error instanceof Fault ? error.message : `this page failed: ${error instanceof Error ? error.message : error}`;
  find("fault").textContent = line;
  find("fault").hidden = false;
  if (!(error instanceof Fault)) console.error(error);
}

function hideFault(): void {
  find("fault").hidden = true;
}

async function main(): Promise<void> {
  registerCodecs();
  try {
    const named = new URLSearchParams(location.search).get("store") ?? BESIDE;
    if (!URL.canParse(named, location.href)) throw new Fault(`?store=${named} is no address`);
    const url = new URL(named, location.href);
    if (!/^https?:$/.test(url.protocol)) throw new Fault(`${url.protocol}// cannot be read by a browser; serve the store by http, or run \`lesionzarr view\``);
    const store = new HttpStore(url);
    new Page(await openCatalog(store), merging(store)).start();
    document.body.classList.add("ready");
  } catch (error) {
    find("counts").textContent = "";
    showFault(error);
  }
}

void main();
