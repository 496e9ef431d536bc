import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

import { afterAll, beforeAll, expect, test } from 'vitest'

import { call, say } from '../support/model.ts'
import { codeEnv, noCode } from '../support/sandboxes.ts'
import { startServer, type TestServer } from '../support/server.ts'
import type { SdkClient } from './clients.ts'

/** Two tables in; a figure, a workbook and a linked table out. */
const code = [
  'import glob, pandas as pd, matplotlib.pyplot as plt',
  'paths = ["/mnt/data/january.csv", "/mnt/data/february.csv"]',
  'sales = pd.concat([pd.read_csv(path) for path in paths])',
  'sales.plot.bar(x="month", y="sales")',
  'plt.show()',
  'sales.to_excel("/mnt/data/sales.xlsx", index=False)',
  'sales.to_csv("/mnt/data/sales.csv", index=False)',
  'print(sales["sales"].sum())',
  'for path in sorted(glob.glob("/mnt/data/file-*")): print(path)',
].join('\n')
const link = 'sandbox:/mnt/data/sales.csv'
const words = `📈 All of it: [sales.csv](${link}).`

/** What python_code.py and node-code.mjs print; contents are in base64. */
interface Facts {
  status: string
  given: { january: string; february: string; message: string[] }
  code: string[]
  outputs: { logs?: string; image?: string }[]
  parts: string[]
  figure: Downloaded
  words: string
  link: Downloaded & { text: string; marked: string }
  attached: Downloaded[]
}

interface Downloaded {
  id: string
  filename: string
  purpose: string
  bytes: number
  content: string
}

/** Files to code and from it, through the clients; `inV1` of those that speak assistants=v1. */
export function describeCode(
  clients: Record<string, { sdk: SdkClient | undefined; inV1: boolean }>,
): void {
  let server: TestServer
  beforeAll(async () => {
    if (!noCode) server = await startServer(codeEnv())
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  for (const [name, { sdk, inV1 }] of Object.entries(clients)) {
    const why = sdk ? noCode : 'LONGRUN_PYTHON_SDKS does not name it'
    const title = `${name}: tables in; a figure, a workbook and a linked table out`
    test.skipIf(why)(`${title}${why ? ` (skipped: ${why})` : ''}`, async () => {
      server.model.script(call({ name: 'code_interpreter', arguments: { code } }), say(words))
      const { given, figure, link: linked, attached, ...facts } = await seenBy(sdk, inV1, server)
      const ids = [given.january, given.february].toSorted()
      expect(given.message).toEqual([given.february])
      expect(facts).toEqual({
        status: 'completed',
        code: [code],
        outputs: [
          { image: figure.id },
          { logs: `8\n${ids.map((id) => `/mnt/data/${id}\n`).join('')}` },
        ],
        parts: ['image_file', 'text'],
        words,
      })
      expect(figure).toMatchObject({ filename: 'figure.png', purpose: 'assistants_output' })
      expect(bytesOf(figure).subarray(1, 4).toString()).toBe('PNG')
      expect(linked).toMatchObject({ text: link, marked: link, filename: 'sales.csv' })
      expect(bytesOf(linked).toString()).toBe('month,sales\nJan,3\nFeb,5\n')
      // The workbook is there too, though nobody has linked it.
      expect(new Set(attached.map(({ filename }) => filename))).toEqual(
        new Set(['sales.csv', 'sales.xlsx']),
      )
      const workbook = attached.find(({ filename }) => filename === 'sales.xlsx')
      expect(workbook && bytesOf(workbook).includes('xl/workbook.xml')).toBe(true)
    })
  }
}

async function seenBy(
  sdk: SdkClient | undefined,
  inV1: boolean,
  { baseUrl }: TestServer,
): Promise<Facts> {
  if (!sdk) throw new Error('There is no such client')
  const [program = '', , packageName] = sdk.command
  const args = packageName === undefined ? ['python_code.py'] : ['node-code.mjs', packageName]
  const [file = '', ...more] = args
  const facts = { BASE_URL: baseUrl, API_KEY: 'test', ...(inV1 && { GENERATION: 'v1' }) }
  const { PATH = '' } = process.env
  const { stdout } = await promisify(execFile)(
    program,
    [`test/contract/programs/${file}`, ...more],
    { env: { PATH, ...sdk.env, ...facts }, maxBuffer: 64 * 1024 * 1024 },
  )
  return JSON.parse(stdout) as Facts
}

/** All of a file. */
function bytesOf({ bytes, content }: Downloaded): Buffer {
  const data = Buffer.from(content, 'base64')
  expect(data).toHaveLength(bytes)
  return data
}
