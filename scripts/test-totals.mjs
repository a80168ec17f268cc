/**
 * Prints "N passed, N failed" from a report of vitest's json reporter: node scripts/test-totals.mjs REPORT.json
 * A test file that could not be loaded counts as one failure.
 */
import { readFileSync } from "node:fs";

const [report = ""] = process.argv.slice(2);
const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(
  readFileSync(report, "utf8"),
);
const unloaded = testResults.filter(
  (/** @type {{ status: string; assertionResults: unknown[] }} */ file) =>
    file.status === "failed" && file.assertionResults.length === 0,
).length;
const skipped = numPendingTests > 0 ? `, ${numPendingTests} skipped` : "";
console.log(`${numPassedTests} passed, ${numFailedTests + unloaded} failed${skipped}`);
