/**
 * @file Conversations as text, the way that some families of models were trained on them. Each template is a
 * function here, not a program in a file. What the model is to say itself is marked, so that a loss can be
 * taken on that alone.
 */
import { ArgumentError, describe } from "../../core/errors.ts";

export interface ChatMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** A stretch of text; `own`: the assistant's, with what ends its turn. */
export interface ChatPart {
  readonly text: string;
  readonly own: boolean;
}

interface Template {
  /** Before all else; `system` is null if there is no such message. */
  begin(system: string | null): string;
  user(content: string, first: boolean): string;
  /** Asks the assistant to speak. */
  readonly ask: string;
  /** Between that and the answer: not part of a prompt to answer, nor of the answer. */
  readonly gap?: string;
  readonly end: string;
}

const LLAVA_SYSTEM =
  "A chat between a curious user and an artificial intelligence assistant. " +
  "The assistant gives helpful, detailed, and polite answers to the user's questions.";

/** Llama 2 has the system's words inside the first of the user's. */
const llama2System = (system: string) => `<<SYS>>\n${system}\n<</SYS>>\n\n`;

const templates = {
  /** ChatML: Qwen, SmolLM and others. */
  chatml: {
    begin: (system) => (system === null ? "" : `<|im_start|>system\n${system}<|im_end|>\n`),
    user: (content) => `<|im_start|>user\n${content}<|im_end|>\n`,
    ask: "<|im_start|>assistant\n",
    end: "<|im_end|>\n",
  },
  llama2: {
    begin: (system) => (system === null ? "<s>[INST] " : `<s>[INST] ${llama2System(system)}`),
    user: (content, first) => `${first ? "" : "<s>[INST] "}${content} [/INST]`,
    ask: "",
    gap: " ",
    end: " </s>",
  },
  llama3: {
    begin: (system) =>
      `<|begin_of_text|>${system === null ? "" : `<|start_header_id|>system<|end_header_id|>\n\n${system}<|eot_id|>`}`,
    user: (content) => `<|start_header_id|>user<|end_header_id|>\n\n${content}<|eot_id|>`,
    ask: "<|start_header_id|>assistant<|end_header_id|>\n\n",
    end: "<|eot_id|>",
  },
  /** Vicuna's, which LLaVA 1.5 calls v1; its own words for the system unless others are given. */
  llava: {
    begin: (system) => `${system ?? LLAVA_SYSTEM} `,
    user: (content) => `USER: ${content} `,
    ask: "ASSISTANT:",
    gap: " ",
    end: "</s>",
  },
  /** Nothing but the texts, one per line: captions for alignment. */
  plain: {
    begin: (system) => system ?? "",
    user: (content) => content,
    ask: "",
    end: "\n",
  },
} as const satisfies Record<string, Template>;

export type ChatTemplate = keyof typeof templates;

/**
 * A conversation in parts: an optional system message, then user and assistant in turn. After a last message of
 * the user's the assistant is asked to speak, so that the parts are a prompt.
 */
export function chatParts(messages: readonly ChatMessage[], name: ChatTemplate): ChatPart[] {
  const template: Template = templates[name];
  if (!template)
    throw new ArgumentError(
      describe("chatParts", `a template of ${Object.keys(templates).join(", ")}`, `${name}`),
    );
  const system = messages[0]?.role === "system" ? messages[0].content : null;
  const turns = messages.slice(system === null ? 0 : 1);
  const wrong = turns.findIndex((m, i) => m.role !== (i % 2 === 0 ? "user" : "assistant"));
  if (turns.length === 0 || wrong >= 0)
    throw new ArgumentError(
      describe(
        "chatParts",
        "user and assistant in turn",
        turns.map((m) => m.role).join(", ") || "none",
      ),
    );
  const parts: ChatPart[] = [{ text: template.begin(system), own: false }];
  for (const [i, { role, content }] of turns.entries()) {
    if (role === "user") parts.push({ text: template.user(content, i === 0), own: false });
    else
      parts.push(
        { text: template.ask + (template.gap ?? ""), own: false },
        { text: content + template.end, own: true },
      );
  }
  if (turns.at(-1)!.role === "user") parts.push({ text: template.ask, own: false });
  return parts.filter((part) => part.text !== "");
}

/** As chatParts; one text. */
export const chatText = (messages: readonly ChatMessage[], name: ChatTemplate): string =>
  chatParts(messages, name)
    .map((part) => part.text)
    .join("");
