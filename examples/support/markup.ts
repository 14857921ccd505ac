/**
 * @file HTML that cannot be broken by what is put into it: every value in an `html` template is escaped unless it is
 * markup itself. So a forgotten call is a visible `&lt;`, never a script from somebody's caption.
 */

/** Text that is HTML already. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** What a template takes; null, undefined and booleans leave nothing, so `condition && html…` works. */
export type Content = Markup | string | number | boolean | null | undefined | readonly Content[];

/** A template with escaped values: html`<p title="${caption}">${caption}</p>`. Attributes must be quoted. */
export function html(strings: TemplateStringsArray, ...values: readonly Content[]): Markup {
  return new Markup(String.raw({ raw: strings }, ...values.map(render)));
}

function render(value: Content): string {
  if (value instanceof Markup) return value.text;
  if (value === null || value === undefined || typeof value === "boolean") return "";
  return typeof value === "object" ? value.map(render).join("") : escaped(String(value));
}

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Control characters are no HTML at all (tab and line feed are); half of a surrogate pair is no text. */
function escaped(text: string): string {
  return text
    .toWellFormed()
    .replace(/[&<>"']/g, (c) => entities[c])
    .replace(/[^\P{Cc}\t\n]/gu, "\ufffd");
}
