/** What editors show of the built package's types, asked of the language service. */
import { readFileSync } from "node:fs";
import path from "node:path";
import ts from "typescript-api";
import { describe, expect, it, vi } from "vitest";

vi.setConfig({ testTimeout: 120_000 });

const root = path.resolve(import.meta.dirname, "../..");
const { exports } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as {
  exports: Record<string, string | { readonly types: string }>;
};
const entries = Object.values(exports).flatMap((each) =>
  typeof each === "string" ? [] : [path.join(root, each.types)],
);
const usage = path.join(root, "test/usage.ts");
const text = `import type { Pipeline } from "patchwise/pipelines";
declare const pipeline: Pipeline;
pipeline.generate({ steps: 4, sampler: "euler" });
`;
const versions = new Map([usage, ...entries].map((file) => [file, "1"]));
const service = ts.createLanguageService({
  ...ts.sys,
  useCaseSensitiveFileNames: () => ts.sys.useCaseSensitiveFileNames,
  getScriptFileNames: () => [...versions.keys()],
  getScriptVersion: (file) => versions.get(file) ?? "1",
  getScriptSnapshot(file) {
    const content = file === usage ? text : ts.sys.readFile(file);
    return content === undefined ? undefined : ts.ScriptSnapshot.fromString(content);
  },
  fileExists: (file) => file === usage || ts.sys.fileExists(file),
  getCurrentDirectory: () => root,
  getCompilationSettings: () => ({
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    allowImportingTsExtensions: true,
    types: [],
  }),
  getDefaultLibFileName: (options) => ts.getDefaultLibFilePath(options),
});
const program = service.getProgram()!;
const checker = program.getTypeChecker();

const symbolsOf = (file: string) =>
  checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)!)!);
const declared = (symbol: ts.Symbol) =>
  symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
const comment = (symbol: ts.Symbol) =>
  ts.displayPartsToString(symbol.getDocumentationComment(checker));

describe("the types of the built package", () => {
  it("are understood, and offer the names of samplers", () => {
    expect(service.getSemanticDiagnostics(usage)).toEqual([]);
    const at = text.indexOf('"euler"') + 1;
    const offered = service.getCompletionsAtPosition(usage, at, {})?.entries ?? [];
    const names = offered.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(["euler", "heun", "unipc", "renoise"]));
  });

  it("show what an option does where it is written", () => {
    const shown = service.getQuickInfoAtPosition(usage, text.indexOf("steps"))!;
    expect(ts.displayPartsToString(shown.displayParts)).toContain("steps?: number");
    expect(ts.displayPartsToString(shown.documentation)).toMatch(
      /whole number from 1.*by default/s,
    );
  });

  it("have a text for every option of every import", () => {
    const options = [...new Set(entries.flatMap(symbolsOf).map(declared))].filter(({ name }) =>
      /(?:Options|Request|Settings|Config|ConfigInput|Recipe|Parts)$/.test(name),
    );
    expect(options.length).toBeGreaterThan(60);
    const silent = options.flatMap((symbol) =>
      silentIn(checker.getDeclaredTypeOfSymbol(symbol), symbol.name),
    );
    expect([...new Set(silent)].toSorted()).toEqual([]);
  });

  it("carry the texts of configs, which schemas describe, into nested fields", () => {
    const config = entries.flatMap(symbolsOf).find(({ name }) => name === "TrainingConfigInput")!;
    const fields = fieldsOf(checker.getDeclaredTypeOfSymbol(declared(config)));
    const training = fields.find(({ name }) => name === "training")!;
    const batch = fieldsOf(checker.getTypeOfSymbol(training)).find(({ name }) => name === "batch");
    expect(comment(batch!)).toMatch(/64 by default/);
  });

  it("export every type that an exported signature names", () => {
    const exported = new Set(entries.flatMap(symbolsOf).map(declared));
    const hidden = new Set<string>();
    for (const symbol of exported) {
      for (const declaration of symbol.declarations ?? []) {
        if (!isOurs(declaration.getSourceFile().fileName)) continue;
        for (const named of namesIn(declaration)) {
          if (!exported.has(named)) hidden.add(`${symbol.name}: ${named.name}`);
        }
      }
    }
    expect([...hidden].toSorted()).toEqual([]);
  });
});

function isOurs(file: string): boolean {
  return file.startsWith(path.join(root, "dist"));
}

/** The fields of a type, of all its members if it is a union, that this package declares. */
function fieldsOf(type: ts.Type): ts.Symbol[] {
  const members = type.isUnion() ? type.types : [type];
  return members
    .filter(({ flags }) => flags & (ts.TypeFlags.Object | ts.TypeFlags.Intersection))
    .flatMap((member) => checker.getPropertiesOfType(member))
    .filter(({ declarations }) =>
      declarations?.some((each) => isOurs(each.getSourceFile().fileName)),
    );
}

/** The paths of fields without a text, but for those of a single value, such as `kind`, and those inside other named types. */
function silentIn(type: ts.Type, at: string): string[] {
  return fieldsOf(type).flatMap((field) => {
    const here = `${at}.${field.name}`;
    const value = checker.getNonNullableType(checker.getTypeOfSymbol(field));
    const silent = comment(field) === "" && !value.isLiteral();
    // A type with a name of its own is documented where it is declared.
    const [declaration] = field.declarations ?? [];
    const written = declaration && ts.isPropertySignature(declaration) && declaration.type;
    const named =
      written && /^[A-Z]\w*(?:<.*>|\["\w+"\])?(?: \| undefined)?$/s.test(written.getText());
    const plain = (value.isUnion() ? value.types : [value]).filter((member) => {
      const symbol = member.aliasSymbol ?? member.getSymbol();
      return !named && (symbol === undefined || symbol.name.startsWith("__"));
    });
    const inside = plain.flatMap((member) => silentIn(member, here));
    return silent ? [here, ...inside] : inside;
  });
}

/** Whether a module of the package exports a type. Editors spell out the others, which no import could name. */
function isExported({ declarations = [] }: ts.Symbol): boolean {
  return declarations.some((each) => ts.getCombinedModifierFlags(each) & ts.ModifierFlags.Export);
}

/** The exported types of this package's modules that a declaration names. */
function namesIn(declaration: ts.Declaration): ts.Symbol[] {
  const found: ts.Symbol[] = [];
  const visit = (node: ts.Node): void => {
    const hidden =
      ts.canHaveModifiers(node) &&
      ts.getModifiers(node)?.some(({ kind }) => kind === ts.SyntaxKind.PrivateKeyword);
    if (hidden) return;
    const name = ts.isTypeReferenceNode(node)
      ? node.typeName
      : ts.isExpressionWithTypeArguments(node)
        ? node.expression
        : ts.isImportTypeNode(node)
          ? node.qualifier
          : undefined;
    const symbol = name && checker.getSymbolAtLocation(name);
    if (symbol) {
      const named = declared(symbol);
      const local = named.flags & ts.SymbolFlags.TypeParameter;
      const ours = named.declarations?.some((each) => isOurs(each.getSourceFile().fileName));
      if (ours && !local && isExported(named)) found.push(named);
    }
    ts.forEachChild(node, visit);
  };
  visit(declaration);
  return found;
}
