/** Words that ask for a motion, in English and Chinese, and how captions say them. */
import type { MotionName } from "../../src/data/motions.ts";

type Words = readonly string[];

const words: Readonly<Record<MotionName, { readonly en: Words; readonly zh: Words }>> = {
  bounce: { en: ["bouncing", "jumping", "hopping"], zh: ["跳动", "弹跳", "跳跃"] },
  spin: { en: ["spinning", "rotating", "turning", "whirling"], zh: ["旋转", "转动"] },
  slide: { en: ["sliding", "moving sideways", "gliding"], zh: ["滑动", "左右移动"] },
  zoom: { en: ["zooming", "growing", "pulsing"], zh: ["缩放", "放大"] },
  shake: { en: ["shaking", "wobbling", "trembling"], zh: ["摇晃", "抖动"] },
  fade: { en: ["fading", "vanishing", "disappearing"], zh: ["淡出", "消失"] },
  stay: { en: ["still", "motionless"], zh: ["静止"] },
};

const article = /^(an?|the) /i;

/**
 * A caption with a word for a motion.
 *
 * @param u numbers in [0, 1), a new one each time
 */
export function withMotion(caption: string, motion: MotionName, u: () => number): string {
  const pick = (from: Words) => from[Math.floor(u() * from.length)]!;
  // Without a word nothing moves.
  if (motion === "stay" && u() < 0.8) return caption;
  const { en, zh } = words[motion];
  if (/\p{Script=Han}/u.test(caption)) {
    const word = pick(zh);
    return u() < 0.7 ? `${word}的${caption}` : `${caption}在${word}`;
  }
  const word = pick(en);
  const form = u();
  if (form < 0.15) return `${caption} ${word}`;
  if (form < 0.22) return `${caption}, ${word}`;
  if (form < 0.3) return `${caption} that is ${word}`;
  const bare = caption.replace(article, "");
  const [, before, rest] = /^(.* of (?:an? |the )?)(.+)$/i.exec(caption) ?? [];
  if (before !== undefined && form < 0.6) return `${before.replace(/ an $/, " a ")}${word} ${rest}`;
  return form < 0.65 ? `${word} ${bare}` : `a ${word} ${bare}`;
}
