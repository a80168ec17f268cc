/** What people do in the studio's Draw view with a mouse, a finger and a keyboard alone, and with links from others. */
import { strict as assert } from "node:assert";
import type { Page } from "playwright-core";
import { toPng } from "../../src/pictures/png.ts";
import { drawIn, pixelsOf, seriousIssues, type Studio } from "../../test/support/studio.ts";

const SIDE = 64;
/** Presses of Tab after which every control has been reached. */
const MOST_TABS = 80;

export async function byHand(studio: Studio, patience: number): Promise<void> {
  const open = async (hash: string, options?: Parameters<Studio["open"]>[1]) => {
    const page = await studio.open(hash, options);
    page.setDefaultTimeout(patience);
    return page;
  };
  await withKeysAlone(await open("draw?steps=3"));
  await shareLink(open);
  await inpaint(await open("draw?prompt=red+heart&steps=3&seed=1"), withMouse);
  await inpaint(await open("draw?prompt=red+heart&steps=3&seed=1"), withKeys);
  await inpaint(await open("draw?prompt=red+heart&steps=3&seed=1", { width: 390 }), withFinger);
}

/** Presses Tab until an element has the focus, which must then be seen. */
async function tabTo(page: Page, selector: string): Promise<void> {
  for (let i = 0; i < MOST_TABS; i++) {
    await page.keyboard.press("Tab");
    const focused = await page.evaluate((wanted) => {
      const element = document.activeElement;
      if (!element?.matches(wanted)) return undefined;
      const { outlineStyle, boxShadow } = getComputedStyle(element);
      return outlineStyle !== "none" || boxShadow !== "none";
    }, selector);
    if (focused === undefined) continue;
    assert.ok(focused, `the focus on ${selector} is seen`);
    return;
  }
  assert.fail(`${selector} is not reached by Tab`);
}

async function withKeysAlone(page: Page): Promise<void> {
  await tabTo(page, "a.skip");
  await page.keyboard.press("Enter");
  await tabTo(page, "textarea");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("blue house");
  await tabTo(page, "button[type=submit]");
  await page.keyboard.press("Enter");
  await page.locator(".picture-actions").waitFor();
  await tabTo(page, "input[type=number]");
  await page.keyboard.press("ArrowUp");
  assert.equal(await page.getByRole("spinbutton", { name: "Seed" }).inputValue(), "8");
  await tabTo(page, "input[type=range]");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.getByRole("slider", { name: "Pictures" }).inputValue(), "2");
  await tabTo(page, "summary");
  await page.keyboard.press("Enter");
  await page.getByText("Choose a picture").waitFor();
  await tabTo(page, ".film button");
  await page.keyboard.press("Space");
  assert.equal(await page.locator(".film button[aria-pressed=true]").count(), 1);
  await tabTo(page, ".picture-actions button");
  await page.keyboard.press("Enter");
  await page.locator(".attention-picture").waitFor();
  await page.context().close();
  console.log("keys alone: prompt, drawing, seed, count, start picture, steps, look inside");
}

type Open = (hash: string, options?: Parameters<Studio["open"]>[1]) => Promise<Page>;

/** Every setting of the form, as a person reads it. */
const formOf = (page: Page) =>
  page
    .locator("form")
    .locator("textarea, input:not([type=file]), select")
    .evaluateAll((fields) => fields.map((each) => (each as HTMLInputElement).value));

async function shareLink(open: Open): Promise<void> {
  const page = await open("draw");
  await page.getByRole("textbox", { name: "Prompt" }).fill("purple cat, 100% & more = 猫?");
  await page.getByRole("spinbutton", { name: "Seed" }).fill("123");
  await page.getByRole("slider", { name: "Pictures" }).fill("2");
  await page.getByRole("slider", { name: "Steps" }).fill("4");
  await page.getByRole("slider", { name: "Guidance" }).fill("2.5");
  await drawIn(page);
  const negative = page.locator(".numbers input:not([type])");
  await negative.fill("blue + red");
  await page.getByRole("combobox", { name: "Sampler" }).selectOption("heun");
  await drawIn(page);
  await page.getByRole("button", { name: "Copy link" }).click();
  await page.getByText("The link is copied.").waitFor();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  const shared = await formOf(page);
  const picture = await pixelsOf(page, ".pictures canvas >> nth=1");

  const hash = link.slice(link.indexOf("#/") + 2);
  const fresh = await open(hash);
  await drawIn(fresh);
  assert.deepEqual(await formOf(fresh), shared);
  assert.deepEqual(await pixelsOf(fresh, ".pictures canvas >> nth=1"), picture);

  // One who has settings of their own, and has the page open, gets those of the link too, also where they are the first ones.
  const plain = await open("draw?prompt=red+apple&steps=2");
  await drawIn(plain);
  await plain.getByRole("button", { name: "Copy link" }).click();
  await plain.getByText("The link is copied.").waitFor();
  const other = await plain.evaluate(() => navigator.clipboard.readText());
  await fresh.evaluate((address) => void (location.hash = new URL(address).hash), other);
  await fresh.waitForFunction(() => document.querySelector("textarea")!.value === "red apple");
  assert.deepEqual(await formOf(fresh), await formOf(plain));
  await Promise.all([page, fresh, plain].map((each) => each.context().close()));
  console.log("link: all settings and the picture come back, in a fresh browser and in a used one");
}

/** Paints the left part of the picture, and draws it anew. */
async function inpaint(page: Page, paint: (page: Page) => Promise<void>): Promise<void> {
  const pixels = new Uint8Array(SIDE * SIDE * 3).fill(200);
  const image = await toPng({ width: SIDE, height: SIDE, channels: 3, pixels });
  await page.locator("summary").click();
  await page.locator("[data-purpose=start]").setInputFiles({
    name: "start.png",
    mimeType: "image/png",
    buffer: Buffer.from(image),
  });
  const canvas = page.locator(".brush .mask");
  await canvas.scrollIntoViewIfNeeded();
  await paint(page);
  const painted = await pixelsOf(page, ".brush .mask");
  assert.ok(
    painted.some((value) => value > 0),
    "the brush leaves a stroke",
  );
  // Another view and back: what was painted is still seen.
  await page.locator("#tab-compare").click();
  await page.locator("#tab-draw").click();
  const kept = await pixelsOf(page, ".brush .mask");
  const isPainted = (of: readonly number[], i: number) => of[3 * i]! > 127;
  const all = Array.from({ length: SIDE * SIDE }, (_, i) => i);
  const [before, after] = [painted, kept].map((of) => all.filter((i) => isPainted(of, i)));
  // The soft edge of a stroke is not in the mask.
  assert.ok(after!.every((i) => isPainted(painted, i)) && after!.length > before!.length / 2);
  assert.deepEqual(await seriousIssues(page), []);
  await drawIn(page);
  const drawn = await pixelsOf(page, ".pictures canvas");
  const differs = (i: number) => drawn.slice(3 * i, 3 * i + 3).some((v) => Math.abs(v - 200) > 1);
  const right = Array.from({ length: SIDE }, (_, y) => y * SIDE + SIDE - 1);
  assert.ok(!right.some(differs), "what was not painted stays");
  assert.ok(after!.some(differs), "what was painted is drawn anew");
  await page.context().close();
  console.log(
    `inpainting, ${paint.name}: ${after!.length} pixels drawn anew, the others as they were`,
  );
}

async function places(page: Page) {
  const { x, y, width, height } = (await page.locator(".brush .mask").boundingBox())!;
  return [0.2, 0.5, 0.8].map((share) => ({ x: x + width / 4, y: y + share * height }));
}

async function withMouse(page: Page): Promise<void> {
  const [first, ...rest] = await places(page);
  await page.mouse.move(first!.x, first!.y);
  await page.mouse.down();
  for (const { x, y } of rest) await page.mouse.move(x, y, { steps: 5 });
  await page.mouse.up();
}

async function withKeys(page: Page): Promise<void> {
  await tabTo(page, ".brush .mask");
  for (const key of ["ArrowLeft", "ArrowLeft", "Space", "Shift+ArrowUp", "Shift+ArrowUp"]) {
    await page.keyboard.press(key);
  }
}

async function withFinger(page: Page): Promise<void> {
  const session = await page.context().newCDPSession(page);
  const touch = (type: "touchStart" | "touchMove" | "touchEnd", at: readonly object[]) =>
    session.send("Input.dispatchTouchEvent", { type, touchPoints: at as never });
  const [first, ...rest] = await places(page);
  const scrolled = () => page.evaluate(() => scrollY);
  const before = await scrolled();
  await touch("touchStart", [first!]);
  for (const each of rest) await touch("touchMove", [each]);
  await touch("touchEnd", []);
  assert.equal(await scrolled(), before, "painting does not scroll the page");
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `the page is ${overflow} pixels too wide for a phone`);
}
