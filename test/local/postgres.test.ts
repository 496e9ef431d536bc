import { spawn } from 'node:child_process'
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Client } from 'pg'
import { expect, test } from 'vitest'
import type { Children } from '../../local/children.ts'
import { startPostgres } from '../../local/postgres.ts'
import { eventually, isAlive, quietChildren, scratchDir } from './scratch.ts'

const start = (children: Children, dataDir: string, port = 0) =>
  startPostgres({ children, dataDir, port, database: 'longrun', settings: { fsync: 'off' } })

async function ask(url: string, sql: string) {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 1_000 })
  client.on('error', () => {})
  try {
    await client.connect()
    return (await client.query(sql)).rows
  } finally {
    await client.end()
  }
}

const postmasterOf = (dataDir: string) =>
  Number(readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0])

test('what was stored is found again by the next start', { timeout: 60_000 }, async () => {
  using dir = scratchDir()
  {
    await using children = await quietChildren(dir.path)
    const { url } = await start(children, dir.path)
    await ask(url, "CREATE TABLE notes AS SELECT 'kept' AS note")
  }
  await using children = await quietChildren(dir.path)
  const { url } = await start(children, dir.path)
  expect(await ask(url, 'SELECT note FROM notes')).toEqual([{ note: 'kept' }])
})

test('a killed server comes back by itself', { timeout: 60_000 }, async () => {
  using dir = scratchDir()
  await using children = await quietChildren(dir.path)
  const { url } = await start(children, dir.path)
  await ask(url, "CREATE TABLE notes AS SELECT 'kept' AS note")
  const postmaster = postmasterOf(dir.path)
  process.kill(postmaster, 'SIGKILL')
  await eventually(() => !isAlive(postmaster))
  const rows = await eventually(() => ask(url, 'SELECT note FROM notes').catch(() => undefined))
  expect(rows).toEqual([{ note: 'kept' }])
})

test('a server that nobody supervises any more is stopped first', { timeout: 60_000 }, async () => {
  using dir = scratchDir()
  {
    await using children = await quietChildren(dir.path)
    await start(children, dir.path)
  }
  const [command = '', ...args] = commandLine(dir.path)
  const orphan = spawn(command, args, { stdio: 'ignore', detached: true })
  await eventually(
    () =>
      existsSync(pidFile(dir.path)) && readFileSync(pidFile(dir.path), 'utf8').includes('ready'),
  )

  await using children = await quietChildren(dir.path)
  const { url } = await start(children, dir.path)
  expect(orphan.exitCode ?? orphan.signalCode).not.toBe(null)
  expect(await ask(url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
})

test('only who has the password gets in', { timeout: 60_000 }, async () => {
  using dir = scratchDir()
  await using children = await quietChildren(dir.path)
  const { url } = await start(children, dir.path)
  const wrong = new URL(url)
  wrong.password = 'guess'
  await expect(ask(wrong.href, 'SELECT 1')).rejects.toThrow('password authentication failed')
  expect(statSync(join(dir.path, 'postgres.password')).mode & 0o777).toBe(0o600)
})

test('a lost password is said, and nothing is overwritten', { timeout: 60_000 }, async () => {
  using dir = scratchDir()
  {
    await using children = await quietChildren(dir.path)
    await start(children, dir.path)
  }
  rmSync(join(dir.path, 'postgres.password'))
  await using children = await quietChildren(dir.path)
  await expect(start(children, dir.path)).rejects.toThrow('postgres.password, which holds')
})

test('a taken port is said', { timeout: 60_000 }, async () => {
  using dir = scratchDir()
  using other = scratchDir()
  await using children = await quietChildren(dir.path)
  const { port } = await start(children, dir.path)
  await using others = await quietChildren(other.path)
  await expect(start(others, other.path, port)).rejects.toThrow('POSTGRES_PORT')
})

const pidFile = (dataDir: string) => join(dataDir, 'postgres', 'postmaster.pid')

// As the last start left it in postmaster.opts, in a user namespace if we are root.
function commandLine(dataDir: string) {
  const options = readFileSync(join(dataDir, 'postgres', 'postmaster.opts'), 'utf8')
  const words = options
    .trim()
    .split(' ')
    .map((word) => word.replaceAll('"', ''))
  return process.getuid?.() === 0 ? ['unshare', '-U', ...words] : words
}
