/**
 * Carries comments into the built types: the compiler leaves out those of inferred types, such as the fields of schemas, so editors
 * would show nothing where an option is written. `npm run build` runs this after the compiler. It only adds comments.
 */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import ts from "typescript-api";

const root = path.resolve(import.meta.dirname, "..");
const config = path.join(root, "tsconfig.build.json");
const host = { ...ts.sys, onUnRecoverableConfigFileDiagnostic: () => undefined };
const parsed = ts.getParsedCommandLineOfConfigFile(config, {}, host);
if (!parsed) throw new Error(`${config} cannot be read`);
const program = ts.createProgram(parsed.fileNames, { ...parsed.options, noEmit: true });
const checker = program.getTypeChecker();

for (const source of program.getSourceFiles()) {
  const inside = path.relative(path.join(root, "src"), source.fileName);
  if (inside.startsWith("..") || !/\.tsx?$/.test(inside)) continue;
  const file = path.join(root, "dist", inside.replace(/ts$/, "d.ts"));
  const text = readFileSync(file, "utf8");
  if (text.includes("Zod")) writeFileSync(file, documented(file, text, source));
}

/**
 * @param {string} file
 * @param {string} text the built types of a module
 * @param {ts.SourceFile} source the module that they were built from
 * @returns {string} the same with comments
 */
function documented(file, text, source) {
  const built = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
  /** @type {{ at: number; comment: string }[]} */
  const added = [];
  /** @type {(node: ts.TypeNode | undefined, type: ts.Type) => void} */
  const visit = (node, type) => {
    if (!node) return;
    if (ts.isTypeReferenceNode(node) && node.typeArguments) {
      const given = type.aliasTypeArguments ?? typeArguments(type);
      // The compiler writes out what some of its own types leave as it is.
      if (node.typeName.getText(built) === "NonNullable") visit(node.typeArguments[0], type);
      else node.typeArguments.forEach((each, i) => given[i] && visit(each, given[i]));
    } else if (ts.isTypeOperatorNode(node)) {
      visit(node.type, type);
    } else if (ts.isTupleTypeNode(node)) {
      const elements = typeArguments(type);
      node.elements.forEach((each, i) => elements[i] && visit(each, elements[i]));
    } else if (ts.isFunctionTypeNode(node)) {
      const signature = type.getCallSignatures()[0];
      if (signature) visit(node.type, signature.getReturnType());
    } else if (ts.isUnionTypeNode(node) && type.isUnion()) {
      for (const each of node.types) {
        const same = type.types.find((one) => ts.isTypeLiteralNode(each) && fits(each, one));
        if (same) visit(each, same);
        else if (ts.isTypeReferenceNode(each)) visit(each, type);
      }
    } else if (ts.isTypeLiteralNode(node)) {
      for (const member of node.members) {
        const property = member.name && type.getProperty(member.name.getText(built));
        if (!property || !ts.isPropertySignature(member)) continue;
        const comment = commentOf(property);
        const has = ts.getJSDocCommentsAndTags(member).length > 0;
        if (comment !== "" && !has) added.push({ at: member.getStart(built), comment });
        visit(member.type, checker.getTypeOfSymbol(property));
      }
    }
  };
  const constants = new Map(
    constantsIn(source).map((each) => [each.name.getText(source), each.name]),
  );
  for (const { name, type } of constantsIn(built)) {
    const constant = constants.get(name.getText(built));
    if (constant) visit(type, checker.getTypeAtLocation(constant));
  }
  return added
    .toSorted((a, b) => b.at - a.at)
    .reduce((done, { at, comment }) => {
      const lines = comment.replaceAll("\n", " ");
      return `${done.slice(0, at)}/** ${lines} */ ${done.slice(at)}`;
    }, text);
}

/** @type {(module: ts.SourceFile) => readonly ts.VariableDeclaration[]} */
function constantsIn({ statements }) {
  return statements
    .filter(ts.isVariableStatement)
    .flatMap(({ declarationList }) => [...declarationList.declarations]);
}

/**
 * @param {ts.TypeLiteralNode} node
 * @param {ts.Type} type
 * @returns {boolean} true if a type has all fields of a literal, and the same values where these have only one
 */
function fits({ members }, type) {
  return members.every((member) => {
    const field = member.name && type.getProperty(member.name.getText());
    if (!field) return false;
    const value = ts.isPropertySignature(member) ? member.type : undefined;
    if (!value || !ts.isLiteralTypeNode(value)) return true;
    return checker.typeToString(checker.getTypeOfSymbol(field)) === value.getText();
  });
}

/** @type {(type: ts.Type) => readonly ts.Type[]} */
function typeArguments(type) {
  const reference = /** @type {ts.TypeReference} */ (type);
  return reference.target ? checker.getTypeArguments(reference) : [];
}

/**
 * @param {ts.Symbol} property
 * @returns {string} its comment, else that of the constant whose value it has
 */
function commentOf(property) {
  const own = ts.displayPartsToString(property.getDocumentationComment(checker));
  const declaration = property.valueDeclaration ?? property.declarations?.[0];
  if (own !== "" || !declaration) return own;
  const named = ts.isShorthandPropertyAssignment(declaration)
    ? checker.getShorthandAssignmentValueSymbol(declaration)
    : ts.isPropertyAssignment(declaration) && constantOf(declaration.initializer);
  const imported = named && named.flags & ts.SymbolFlags.Alias;
  const constant = named && imported ? checker.getAliasedSymbol(named) : named;
  const value = constant && (constant.valueDeclaration ?? constant.declarations?.[0]);
  if (!value) return "";
  if (!ts.isBindingElement(value)) {
    return ts.displayPartsToString(constant.getDocumentationComment(checker));
  }
  // A constant such as `const { size } = fields` has the comment of the field.
  const field = checker.getTypeAtLocation(value.parent).getProperty(constant.name);
  return field ? ts.displayPartsToString(field.getDocumentationComment(checker)) : "";
}

/**
 * @param {ts.Expression} value a value such as `count.default(1)`
 * @returns {ts.Symbol | undefined} the constant at its begin, here `count`
 */
function constantOf(value) {
  if (ts.isCallExpression(value)) return constantOf(value.expression);
  if (ts.isPropertyAccessExpression(value)) return constantOf(value.expression);
  return ts.isIdentifier(value) ? checker.getSymbolAtLocation(value) : undefined;
}
