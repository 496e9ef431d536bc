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
  const set = ['--on-active-run', 'enqueue', '--run-expires-after', '86400']
  expect(await admin('project', 'set', 'acme', ...set)).toMatch(
    /^proj_\w{24} {2}on-active-run enqueue {2}run-expires-after 86400 s {2}acme\n$/,
  )
  expect(await admin('project', 'set', 'acme', '--run-expires-after', 'none')).toContain(
    'on-active-run enqueue  run-expires-after none',
  )
  expect(await admin('project', 'list')).toContain('enqueue')
  await expect(admin('project', 'set', 'acme', '--on-active-run', 'later')).rejects.toMatchObject({
    stderr: expect.stringContaining('--on-active-run is later'),
  })
  await expect(
    admin('project', 'set', 'acme', '--run-expires-after', '7776001'),
  ).rejects.toMatchObject({ stderr: expect.stringContaining('1 to 7776000') })
  await expect(admin('project', 'set', 'nobody')).rejects.toMatchObject({
    stderr: expect.stringContaining('There is no project nobody'),
  })
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

test('npm run admin shows and sets what the runs of a project do, and takes it back', async () => {
  await using database = await createDatabase()
  const admin = async (...args: string[]): Promise<string> => {
    const env = { PATH: process.env['PATH'], DATABASE_URL: database.url }
    const { stdout } = await promisify(execFile)(process.execPath, ['local/admin.ts', ...args], {
      env,
    })
    return stdout
  }
  await admin('project', 'create', 'acme')
  const unset = /^proj_\w{24} {2}on-active-run none {2}run-expires-after none {2}acme\n$/
  expect(await admin('project', 'list')).toMatch(unset)
  const both = ['--on-active-run', 'enqueue', '--run-expires-after', '86400']
  const line = await admin('project', 'set', 'acme', ...both)
  expect(line).toMatch(/ {2}on-active-run enqueue {2}run-expires-after 86400 s {2}acme\n$/)
  const one = await admin('project', 'set', 'acme', '--run-expires-after', 'none')
  expect(one).toMatch(/ {2}on-active-run enqueue {2}run-expires-after none {2}acme\n$/)
  expect(await admin('project', 'set', 'acme', '--on-active-run', 'none')).toMatch(unset)

  const refusal = (text: string) => ({ code: 1, stderr: expect.stringContaining(text) })
  const set = (...args: string[]) => admin('project', 'set', ...args)
  await expect(set('acme', '--on-active-run', 'later')).rejects.toMatchObject(refusal('later'))
  await expect(set('acme', '--run-expires-after', '7776001')).rejects.toMatchObject(
    refusal('seconds from 1 to 7776000'),
  )
  await expect(set('nobody', '--on-active-run', 'none')).rejects.toMatchObject(
    refusal('There is no project nobody'),
  )
}, 120_000)
