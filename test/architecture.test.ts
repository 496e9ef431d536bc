import { globSync, readFileSync } from 'node:fs'
import { posix } from 'node:path'

import { expect, test } from 'vitest'

/**
 * Who may import whom. `values` are imports that load the other module, `types` are whole statements of `import type`;
 * whoever may import values may import types too. A name is a folder, or one file of it. `packages` is for the rooms that
 * must stay pure; where it is missing any package will do, but for those in `owners`.
 */
const rooms: Record<string, Room> = {
  wire: { values: [], types: ['store'], packages: [] },
  store: { values: ['wire', 'tokens.ts'], types: ['log.ts', 'models.ts'] },
  sandbox: { values: [], types: ['log.ts', 'models.ts'] },
  workflows: { values: ['wire'], types: ['activities'], packages: ['@temporalio/workflow'] },
  activities: { values: ['wire', 'store', 'sandbox', 'models.ts', 'tokens.ts'], types: ['log.ts'] },
  engine: {
    values: ['wire', 'store', 'workflows/messages.ts'],
    types: ['workflows', 'log.ts', 'models.ts'],
  },
  api: { values: ['wire', 'store', 'engine'], types: ['log.ts', 'models.ts'] },
  worker: {
    values: ['activities', 'engine', 'store', 'sandbox', 'wire'],
    types: ['workflows', 'log.ts', 'models.ts'],
  },
  local: {
    values:
      'wire store sandbox activities engine api worker config.ts log.ts models.ts tokens.ts'.split(
        ' ',
      ),
    types: ['workflows'],
  },
  'config.ts': { values: [], types: [] },
  'log.ts': { values: [], types: [] },
  'models.ts': { values: ['wire'], types: ['log.ts'] },
  'tokens.ts': { values: [], types: [] },
}

/** Packages that only some files may import. */
const owners: Owner[] = [
  { package: 'openai', kind: 'type', files: ['wire/openai.ts'] },
  {
    package: 'openai',
    kind: 'value',
    files: ['activities/provider.ts', 'activities/provider-error.ts'],
  },
]

/** Who reads the environment: config.ts for everybody, and the programs that hand it over. */
const readersOfEnvironment = /^(config\.ts|local\/)/

type Room = { values: string[]; types: string[]; packages?: string[] }
type Owner = { package: string; kind: Kind; files: string[] }
type Kind = 'value' | 'type'

const importStatement =
  /^(?:import|export)\s+(?<type>type\s+)?(?:[\w$*{},\s]*?\sfrom\s+)?'(?<from>[^']+)'|\bimport\('(?<dynamic>[^']+)'\)/gm

test('nobody imports what is not theirs to import', () => {
  const offences = sources().flatMap(({ file, source }) => importOffences(file, source))
  expect(offences.join('\n')).toBe('')
})

test('the environment is read in one place', () => {
  const offences = sources()
    .filter(({ file }) => !readersOfEnvironment.test(file))
    .flatMap(({ file, source }) => environmentOffences(file, source))
  expect(offences.join('\n')).toBe('')
})

test('the rules look at every folder that holds our code', () => {
  const folders = new Set(sources().map(({ file }) => roomOf(file)))
  expect([...folders].filter((room) => !(room in rooms))).toEqual([])
  for (const room of [
    'wire',
    'store',
    'workflows',
    'activities',
    'engine',
    'api',
    'worker',
    'local',
  ])
    expect(folders).toContain(room)
})

test.each([
  ['api/runs.ts', "import { a } from '../activities/index.ts'", 'api may not import activities'],
  ['api/x.ts', "import {\n  a,\n  type B,\n} from '../config.ts'", 'api may not import config.ts'],
  ['api/x.ts', "import { createModels } from '../models.ts'", 'only types of models.ts'],
  ['api/sub/x.ts', "import '../../worker/index.ts'", 'api may not import worker'],
  ['wire/a.ts', "import type { Logger } from '../log.ts'", 'wire may not import log.ts'],
  ['wire/a.ts', "import { type Row } from '../store/rows.ts'", 'only types of store'],
  ['wire/a.ts', "import { z } from 'zod'", 'wire may not import zod'],
  ['wire/a.ts', "import { join } from 'node:path'", 'wire may not import node:path'],
  ['workflows/a.ts', "import { a } from '../activities/a.ts'", 'only types of activities'],
  ['workflows/a.ts', "import { log } from '@temporalio/activity'", 'may not import @temporalio'],
  ['engine/a.ts', "export { assistantRun } from '../workflows/run.ts'", 'only types of workflows'],
  ['store/a.ts', "const m = await import('../api/app.ts')", 'store may not import api'],
  ['api/a.ts', "import type { Run } from 'openai/resources/beta'", 'only wire/openai.ts'],
  ['activities/a.ts', "import OpenAI from 'openai'", 'only activities/provider.ts'],
])('%s: the rules refuse %j', (file, source, rule) => {
  expect(importOffences(file, source).join('\n')).toContain(rule)
})

test('an offence is shown with its file, its line and its rule', () => {
  const source = "import { a } from './a.ts'\n\nimport {\n  b,\n} from '../api/b.ts'\n"
  expect(importOffences('store/x.ts', source)).toEqual([
    "store/x.ts:3: import { b, } from '../api/b.ts' (store may not import api)",
  ])
  expect(environmentOffences('store/x.ts', 'a\nprocess.env.PATH')).toEqual([
    'store/x.ts:2: process.env.PATH (process.env is for config.ts and local)',
  ])
})

function importOffences(file: string, source: string): string[] {
  return [...source.matchAll(importStatement)].flatMap((match) => {
    const kind: Kind = match.groups?.['type'] ? 'type' : 'value'
    const from = match.groups?.['from'] ?? match.groups?.['dynamic'] ?? ''
    const rule = from.startsWith('.') ? roomRule(file, from, kind) : packageRule(file, from, kind)
    if (!rule) return []
    return `${at(file, source, match.index)}: ${match[0].replaceAll(/\s+/g, ' ')} (${rule})`
  })
}

function roomRule(file: string, from: string, kind: Kind): string | undefined {
  const room = roomOf(file)
  const target = posix.join(posix.dirname(file), from)
  if (roomOf(target) === room) return undefined
  const { values = [], types = [] } = rooms[room] ?? {}
  const isNamed = (name: string) => target === name || target.startsWith(`${name}/`)
  if (values.some(isNamed)) return undefined
  if (types.some(isNamed)) {
    return kind === 'type' ? undefined : `${room} may import only types of ${roomOf(target)}`
  }
  return `${room} may not import ${roomOf(target)}`
}

function packageRule(file: string, from: string, kind: Kind): string | undefined {
  const name = from.startsWith('@') ? from.split('/', 2).join('/') : from.split('/', 1).join('')
  const owner = owners.find((one) => one.package === name && one.kind === kind)
  if (owner?.files.includes(file)) return undefined
  if (owner) return `only ${owner.files.join(', ')} imports ${kind}s from ${name}`
  const { packages } = rooms[roomOf(file)] ?? {}
  return packages && !packages.includes(name) ? `${roomOf(file)} may not import ${name}` : undefined
}

function environmentOffences(file: string, source: string): string[] {
  return [...source.matchAll(/^.*process\.env.*$/gm)].map(
    (match) =>
      `${at(file, source, match.index)}: ${match[0].trim()} (process.env is for config.ts and local)`,
  )
}

/** Our code, without tests and measurements, which may look everywhere. */
function sources(): { file: string; source: string }[] {
  return globSync('**/*.ts', {
    exclude: (name) => /^(node_modules|\.\w+|test|bench|playground)$/.test(name),
  })
    .filter((file) => !file.startsWith('vitest.'))
    .toSorted()
    .map((file) => ({ file, source: readFileSync(file, 'utf8') }))
}

function roomOf(file: string): string {
  return file.split('/', 1).join('')
}

function at(file: string, source: string, index: number): string {
  return `${file}:${source.slice(0, index).split('\n').length}`
}
