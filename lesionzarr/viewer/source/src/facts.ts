/** What the table says of a lesion and of its volume. */

import type { Lesion, Volume } from "./catalog";
import { figure, find, make } from "./dom";

export function showFacts(lesion: Lesion, volume: Volume): void {
  find("name").textContent = lesion.id;
  find("kind").textContent = [lesion.type ?? "type unknown", ...lesion.labels].join(", ");
  const size = lesion.longMm === null ? null : lesion.shortMm === null ? figure(lesion.longMm) : `${figure(lesion.longMm)} × ${figure(lesion.shortMm)}`;
  const [slices, rows, columns] = volume.shape;
  const [dz, dy, dx] = volume.spacing.map((mm) => (mm === null ? "?" : trim(mm)));
  const { box } = lesion;
  const person = [lesion.sex, lesion.age === null ? null : `${trim(lesion.age)} y`].filter(Boolean).join(", ");
  const facts: [string, string | null, string[]][] = [
    ["Size", size && `${size} mm`, ["long_mm", "short_mm"]],
    ["Split", lesion.split, ["split"]],
    ["Key slice", lesion.keyZ === null ? "not in the volume" : `${lesion.keyZ + 1} of ${slices}`, ["key_z"]],
    ["Box x", box && `${trim(box.x0)} … ${trim(box.x1)}`, ["x0"]],
    ["Box y", box && `${trim(box.y0)} … ${trim(box.y1)}`, ["y0"]],
    ["Box z", lesion.z0 === null || lesion.z1 === null ? null : `${trim(lesion.z0)} … ${trim(lesion.z1)}`, ["z0"]],
    ["Mask label", lesion.maskLabel === null ? null : String(lesion.maskLabel), []],
    ["Noisy", lesion.noisy ? "yes" : null, []],
    ["Patient", lesion.patientId, []],
    ["Sex, age", person || null, []],
    ["Study date", lesion.studyDate, []],
    ["Time point", lesion.timepoint === null ? null : String(lesion.timepoint), []],
    ["Volume", volume.id, []],
    ["Voxels", `${columns} × ${rows} × ${slices}`, []],
    ["Spacing", `${dx} × ${dy} × ${dz} mm`, []],
    ["Series", volume.description, []],
    ["Kernel", volume.kernel, []],
  ];
  const known = facts.filter((fact): fact is [string, string, string[]] => fact[1] !== null);
  const rowsOf = known.flatMap(([name, value, columnsOf]) => {
    const computed = columnsOf.some((column) => lesion.derived.includes(column));
    const note = computed ? [make("span", { class: "note", title: "computed, not given by the source" }, " computed")] : [];
    return [make("dt", {}, name), make("dd", {}, value, ...note)];
  });
  find("facts").replaceChildren(...rowsOf);
}

/** Gives a number without needless digits. */
function trim(value: number): string {
  return String(Number(value.toFixed(2)));
}
