import { styleText } from 'node:util';

/** Writes the demo's story: headings, plain sentences, tables, and checks that are counted. */
export interface Screen {
  /** A numbered step. */
  step(title: string): void;
  say(text: string): void;
  table(header: readonly string[], rows: readonly (readonly string[])[]): void;
  /** Prints what was expected and whether it held. */
  check(holds: boolean, text: string): void;
  /** Checks that did not hold. */
  failures(): readonly string[];
  checks(): number;
}

export function createScreen(stream: NodeJS.WriteStream): Screen {
  const failed: string[] = [];
  let steps = 0;
  let checks = 0;
  const style = (format: Parameters<typeof styleText>[0], text: string) => styleText(format, text, { stream });
  const write = (text: string) => stream.write(`${text}\n`);
  return {
    step(title) {
      write(`\n${style('bold', `${++steps}. ${title}`)}`);
    },
    say: (text) => write(text === '' ? '' : `   ${text.replaceAll('\n', '\n   ')}`),
    table(header, rows) {
      const [head, ...body] = alignedRows([header, ...rows]);
      write(`   ${style('dim', head!)}`);
      for (const row of body) write(`   ${row}`);
    },
    check(holds, text) {
      checks++;
      if (!holds) failed.push(text);
      write(`   ${holds ? style('green', '✔') : style('red', '✘')} ${text}`);
    },
    failures: () => failed,
    checks: () => checks,
  };
}

/** Rows as lines whose columns line up, two spaces between them. */
function alignedRows(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
}
