// Builds ../page from this folder: `npm ci && npm run build`. Needs Node 20 or newer; nothing else of the package does.
//
// esbuild bundles src/ with zarrita, hyparquet, fzstd and the WebAssembly of Blosc into one file, so that the page asks for
// nothing but the store. numcodecs' other codecs are left out: zstd is decoded by fzstd, and no profile uses lz4 alone. The
// first line of viewer.js tells the SHA-256 of the sources, by which tests/test_viewer.py finds a page that was not rebuilt.

import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const PAGE = "../page";
const PACKAGES = ["zarrita", "@zarrita/storage", "numcodecs", "hyparquet", "fzstd"];

const sources = ["build.mjs", "index.html", "package-lock.json", "style.css", ...readdirSync("src").map((name) => `src/${name}`)].sort();
const hash = createHash("sha256");
for (const name of sources) hash.update(readFileSync(name, "utf8").replaceAll("\r\n", "\n"));

const none = { name: "none", setup: ({ onResolve, onLoad }) => {
  onResolve({ filter: /^numcodecs\/(lz4|zstd)$/ }, ({ path }) => ({ path, namespace: "none" }));
  onLoad({ filter: /.*/, namespace: "none" }, () => ({ contents: "export default null;" }));
} };

rmSync(PAGE, { recursive: true, force: true });
mkdirSync(PAGE);
await build({
  entryPoints: ["src/main.ts"],
  outfile: `${PAGE}/viewer.js`,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  banner: { js: `// sources ${hash.digest("hex")}; third parties: licences.txt` },
  plugins: [none],
});
cpSync("index.html", `${PAGE}/index.html`);
cpSync("style.css", `${PAGE}/viewer.css`);
const licences = PACKAGES.map((name) => {
  const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  return `${name} ${version}\n\n${licence(name)}`;
});
writeFileSync(`${PAGE}/licences.txt`, licences.join(`\n${"-".repeat(80)}\n\n`));

function licence(name) {
  const file = readdirSync(`node_modules/${name}`).find((entry) => /^licen[cs]e/i.test(entry));
  return readFileSync(`node_modules/${file ? name : name.split("/")[0].replace("@", "")}/${file ?? "LICENSE"}`, "utf8");
}
