import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

import type { Answered } from '../support/http-capture.ts'
import { notServed } from './deviations.ts'
import { openDocument, type Dialect, type Operation } from './document.ts'

/** By dialect and client, `npm 7`: the operations that were answered as the document says. */
export type Coverage = Partial<Record<Dialect, Record<string, string[]>>>

/** Where the full contract test leaves what it has seen. */
const seen = '.data/contract/coverage.json'
const readme = 'README.md'
const begin = '<!-- coverage:begin -->'
const end = '<!-- coverage:end -->'

export function coverageOf(answers: Answered[]): Coverage {
  const coverage: Coverage = {}
  for (const { operation, dialect, isStream, client } of answers) {
    if (client === undefined) continue
    const spoken = dialect ?? (isOld(client) ? 'v1' : 'v2')
    const operations = ((coverage[spoken] ??= {})[generationOf(client)] ??= [])
    const name = rowName(operation.id, isStream)
    if (!operations.includes(name)) operations.push(name)
  }
  return coverage
}

export function keepCoverage(coverage: Coverage): void {
  mkdirSync(dirname(seen), { recursive: true })
  writeFileSync(seen, JSON.stringify(coverage))
}

/** Markdown: an operation a line, a client a column. */
export function coverageTable(coverage: Coverage): string {
  return (['v2', 'v1'] as const)
    .flatMap((dialect) => {
      const clients = coverage[dialect]
      return clients ? [`\`OpenAI-Beta: assistants=${dialect}\`\n\n${table(dialect, clients)}`] : []
    })
    .join('\n\n')
}

/** What stands in the README between its two markers, which must be there. */
export function tableIn(text: string): string {
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from < 0 || to < from) {
    throw new Error(
      `${readme} has no place for the table: put ${begin} and ${end} where it belongs`,
    )
  }
  return text.slice(from + begin.length, to).trim()
}

function table(dialect: Dialect, clients: Record<string, string[]>): string {
  const names = Object.keys(clients).toSorted(byClient)
  const rows = openDocument(dialect)
    .operations.filter(({ id }) => !notServed.some(({ operation }) => operation === id))
    .flatMap((operation) => rowsOf(operation))
    .map(({ title, name }) => [
      title,
      ...names.map((client) => (clients[client]?.includes(name) ? '✓' : '')),
    ])
  return [['Operation', ...names], ['---', ...names.map(() => ':-:')], ...rows]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n')
}

/** A run that is streamed is a row of its own. */
function rowsOf({ id, method, path, body }: Operation): { title: string; name: string }[] {
  const title = `\`${method} ${path}\``
  const plain = { title, name: rowName(id, false) }
  const isStreamed = JSON.stringify(body ?? {}).includes('Run') && /runs$|submit/.test(path)
  return isStreamed ? [plain, { title: `${title}, streamed`, name: rowName(id, true) }] : [plain]
}

function rowName(operation: string, isStream: boolean): string {
  return isStream ? `${operation}, streamed` : operation
}

/** `js 7.57.0` is `npm 7`. */
function generationOf(client: string): string {
  const [language, version = ''] = client.split(' ')
  return `${language === 'js' ? 'npm' : 'Python'} ${version.split('.', 1).join('')}`
}

/** Whether it is of the generations that send assistants=v1, where a dialect is asked for. */
function isOld(client: string): boolean {
  const [, language, major, minor] = /^(\w+) (\d+)\.(\d+)/.exec(client) ?? []
  return language === 'js'
    ? major === '4' && Number(minor) <= 36
    : major === '1' && Number(minor) <= 20
}

function byClient(a: string, b: string): number {
  const [[languageA = '', versionA], [languageB = '', versionB]] = [a.split(' '), b.split(' ')]
  if (languageA !== languageB) return languageA === 'npm' ? -1 : 1
  return Number(versionA) - Number(versionB)
}

/** `npm run docs:coverage`: prints the table of the last full contract test; with `--write` the README gets it. */
if (import.meta.main) {
  const made = coverageTable(JSON.parse(readFileSync(seen, 'utf8')) as Coverage)
  if (process.argv.includes('--write')) {
    const text = readFileSync(readme, 'utf8')
    const before = tableIn(text)
    const head = text.slice(0, text.indexOf(begin))
    const tail = text.slice(text.indexOf(end))
    if (before !== made) writeFileSync(readme, `${head}${begin}\n\n${made}\n\n${tail}`)
  } else {
    process.stdout.write(`${made}\n`)
  }
}
