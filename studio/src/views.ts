/** Which view the page shows, as its address says. */
import { hashOf, settings, settingsOfHash } from "./settings.ts";
import { store } from "./store.ts";

export const viewNames = ["draw", "inside", "compare", "train"] as const;
export type ViewName = (typeof viewNames)[number];

function viewOfHash(): ViewName {
  const name = /^#\/(\w+)/.exec(location.hash)?.[1] ?? "";
  return viewNames.find((each) => each === name) ?? "draw";
}

export const view = store<ViewName>(viewOfHash());

export function show(name: ViewName): void {
  if (view.get() !== name) view.set(name);
  window.history.replaceState(null, "", hashOf(name, settings.get()));
}

window.addEventListener("hashchange", () => {
  settings.patch(settingsOfHash(location.hash));
  view.set(viewOfHash());
});
