import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

import { expect, test } from 'vitest'

import { createDatabase } from '../support/server.ts'

test('npm run admin makes projects and keys, lists them without their secret, and revokes them', async () => {
  await using database = await createDatabase()
  const admin = async (...args: string[]): Promise<string> => {
    const env = { PATH: process.env['PATH'], DATABASE_URL: database.url }
    const { stdout } = await promisify(execFile)(process.execPath, ['local/admin.ts', ...args], {
      env,
    })
    return stdout
  }
  expect(await admin('project', 'create', 'acme')).toMatch(/^proj_\w{24} {2}acme\n$/)
  const made = await admin('key', 'create', '--project', 'acme', '--name', 'ci')
  const [key = '', about = ''] = made.split('\n')
  expect(key).toMatch(/^sk-[\w-]{32}$/)
  const id = /^key_\w{24}/.exec(about)?.[0] ?? ''
  const listed = await admin('key', 'list')
  expect(listed).toContain(`${id}  ...${key.slice(-4)}`)
  expect(listed).toContain('in force')
  expect(listed).not.toContain(key)
  expect(await admin('key', 'revoke', id)).toContain(`${id} is revoked`)
  expect(await admin('key', 'list')).toContain('revoked')
  await expect(admin('key', 'revoke', 'key_none')).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining('There is no key key_none'),
  })
  await expect(admin('nonsense')).rejects.toMatchObject({
    stderr: expect.stringContaining('Usage:'),
  })
})
