/** A tiny set to train on: shapes in colours, drawn in the page. */
import { pictureOfCanvas } from "../parts/files.ts";
import type { TrainingExample } from "./examples.ts";

const colours = { red: "#e23b3b", green: "#2f9e5b", blue: "#3577e0", yellow: "#f2b632" } as const;

/** Each draws within a circle of radius 1 around the origin. */
const shapes = {
  circle: (context) => context.arc(0, 0, 0.95, 0, 2 * Math.PI),
  square: (context) => context.rect(-0.8, -0.8, 1.6, 1.6),
  triangle: (context) => polygon(context, 3, 1, -Math.PI / 2),
  star(context) {
    for (let i = 0; i < 10; i++) {
      const [radius, angle] = [i % 2 ? 0.45 : 1.05, (i * Math.PI) / 5 - Math.PI / 2];
      context.lineTo(radius * Math.cos(angle), radius * Math.sin(angle));
    }
  },
} as const satisfies Record<string, (context: OffscreenCanvasRenderingContext2D) => void>;

function polygon(
  context: OffscreenCanvasRenderingContext2D,
  corners: number,
  radius: number,
  turn: number,
): void {
  for (let i = 0; i < corners; i++) {
    const angle = turn + (2 * Math.PI * i) / corners;
    context.lineTo(radius * Math.cos(angle), radius * Math.sin(angle));
  }
}

/** Pictures of each shape in each colour, in several places and sizes. */
const COPIES = 6;

/** @param side of a picture in pixels */
export function shapeExamples(side: number): TrainingExample[] {
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  const examples: TrainingExample[] = [];
  for (let copy = 0; copy < COPIES; copy++) {
    for (const [colour, fill] of Object.entries(colours)) {
      for (const [shape, path] of Object.entries(shapes)) {
        context.resetTransform();
        context.fillStyle = "white";
        context.fillRect(0, 0, side, side);
        // Spread evenly, and the same each time.
        const at = (phase: number) => 0.08 * side * Math.sin(2.4 * examples.length + phase);
        const radius = side * (0.26 + 0.08 * Math.sin(1.7 * examples.length));
        context.setTransform(radius, 0, 0, radius, side / 2 + at(0), side / 2 + at(2));
        context.beginPath();
        path(context);
        context.closePath();
        context.fillStyle = fill;
        context.fill();
        examples.push({ caption: `${colour} ${shape}`, picture: pictureOfCanvas(context) });
      }
    }
  }
  return examples;
}
