import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'

import { describe, expect, test } from 'vitest'

import { startDemoModel } from '../../local/demo-model.ts'
import { queryOnce } from '../support/cluster.ts'
import { call, say, startScriptedModel } from '../support/model.ts'
import { codeEnv, noCode } from '../support/sandboxes.ts'
import { startServer } from '../support/server.ts'
import { pythonClient } from './clients.ts'

const readme = readFileSync('README.md', 'utf8')
const python = pythonClient('3.54.0')

/** The first block of the README in this language, as printed but for where the server listens. */
function snippet(language: string, baseUrl: string): string {
  const code = new RegExp(`\`\`\`${language}\\n(.*?)\`\`\``, 's').exec(readme)?.[1] ?? ''
  expect(code).toContain('http://127.0.0.1:3000/v1')
  return code.replace('http://127.0.0.1:3000/v1', baseUrl)
}

async function runPython(baseUrl: string): Promise<string> {
  const [command = ''] = python?.command ?? []
  const { stdout } = await promisify(execFile)(command, ['-c', snippet('python', baseUrl)], {
    env: { ...python?.env },
  })
  return stdout
}

async function runNode(baseUrl: string): Promise<string> {
  const args = ['--input-type=module', '-e', snippet('js', baseUrl)]
  const { stdout } = await promisify(execFile)(process.execPath, args)
  return stdout
}

const programs = [
  { name: 'Python', run: runPython, isMissing: !python },
  { name: 'Node', run: runNode, isMissing: false },
]

describe.each(programs)("the README's example in $name prints an answer", ({ run, isMissing }) => {
  test.skipIf(isMissing)('of the demo model', async () => {
    await using demo = await startDemoModel({ port: 0, tokenDelayMs: 1 })
    await using server = await startServer({ UPSTREAM_BASE_URL: demo.url })
    const lines = await run(server.baseUrl)
    expect(lines).toContain('user Solve the equation `3x + 11 = 14`.')
    expect(lines).toMatch(/assistant \[demo model\][^]*x = 1/)
  })

  const whyNot = noCode ? ` (skipped: ${noCode})` : ''
  test.skipIf(isMissing || noCode)(`with code that ran${whyNot}`, async () => {
    await using demo = await startDemoModel({ port: 0, tokenDelayMs: 1 })
    await using server = await startServer({ ...codeEnv(), UPSTREAM_BASE_URL: demo.url })
    const lines = await run(server.baseUrl)
    const calls = await queryOnce(server.databaseUrl, 'SELECT outputs FROM tool_calls')
    expect(calls).toMatchObject([{ outputs: [{ type: 'logs', logs: 'x = 1\n' }] }])
    expect(lines).toMatch(/assistant \[demo model\] The code interpreter ran[^]*\n\nx = 1\n$/)
  })

  test.skipIf(isMissing)(
    'of another endpoint, under the name that DEFAULT_MODEL gives it',
    async () => {
      await using model = await startScriptedModel({ models: ['llama3.2'] })
      await using server = await startServer({
        UPSTREAM_BASE_URL: model.url,
        DEFAULT_MODEL: 'llama3.2',
      })
      model.script(
        call({ name: 'code_interpreter', arguments: { code: 'print(1)' } }),
        say('It is one.'),
      )
      expect(await run(server.baseUrl)).toContain('assistant It is one.')
      // The example asks for a model of 2023, which this endpoint does not have.
      expect(model.requests.map(({ body }) => body.model)).toEqual(['llama3.2', 'llama3.2'])
    },
  )
})
