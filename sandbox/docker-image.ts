import { createHash } from 'node:crypto'
import { lstatSync, type Stats, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { join, posix } from 'node:path'
import { Readable } from 'node:stream'

import type { DockerDaemon } from './docker-daemon.ts'
import type { SandboxRoot } from './root.ts'

export interface ContainerUser {
  uid: number
  gid: number
}

/**
 * The image for a root file system of binds: the places to bind to, the links, and a copy of /etc, which cannot be bound
 * since docker puts files of its own there. Made where it is not there yet; its name follows from what is in it.
 */
export async function ensureImage(
  daemon: DockerDaemon,
  root: SandboxRoot,
  user: ContainerUser,
): Promise<string> {
  const tar = tarOf(imageEntries(root, user))
  const name = `longrun-sandbox:${createHash('sha256').update(tar).digest('hex').slice(0, 16)}`
  if (!(await daemon.imageId(name))) await daemon.importImage(name, Readable.from([tar]))
  return name
}

/** What of the root is bound when the container starts. */
export function bindsOf(root: SandboxRoot): SandboxRoot['binds'] {
  return root.binds.filter(({ to }) => to !== ETC)
}

export type TarEntry =
  | { type: 'directory'; path: string; mode: number }
  | { type: 'file'; path: string; mode: number; data: Buffer }
  | { type: 'link'; path: string; target: string }

const ETC = '/etc'
const PLACES = ['dev', 'proc', 'sys', 'run', 'tmp', 'home/sandbox', 'mnt/data', 'kernel', 'var']
/** Docker's own, of the container; what it would tell of the host is bound over (docker.ts). */
const OF_DOCKER = new Set(['/etc/hosts', '/etc/hostname', '/etc/resolv.conf', '/etc/mtab'])

function imageEntries(root: SandboxRoot, user: ContainerUser): TarEntry[] {
  const entries = new Map<string, TarEntry>()
  const put = (entry: TarEntry): void => {
    const parent = posix.dirname(entry.path)
    if (parent !== '/' && !entries.has(parent))
      put({ type: 'directory', path: parent, mode: 0o755 })
    if (!entries.has(entry.path)) entries.set(entry.path, entry)
  }
  const etc = root.binds.find(({ to }) => to === ETC)
  for (const entry of etc ? copyOf(etc.from, ETC) : []) put(withUser(entry, user))
  // Docker gives a tmpfs the mode of what it hides.
  put({ type: 'directory', path: '/tmp', mode: 0o1777 })
  for (const place of PLACES) put({ type: 'directory', path: `/${place}`, mode: 0o755 })
  put({ type: 'link', path: '/var/tmp', target: '/tmp' })
  for (const { target, path } of root.symlinks)
    if (!isBeneathBind(root, path)) put({ type: 'link', path, target })
  for (const { from, to } of bindsOf(root)) {
    if (isBeneathBind(root, to)) continue
    if (statSync(from).isDirectory()) put({ type: 'directory', path: to, mode: 0o755 })
    else put({ type: 'file', path: to, mode: 0o644, data: Buffer.alloc(0) })
  }
  return [...entries.values()]
}

function isBeneathBind(root: SandboxRoot, path: string): boolean {
  return bindsOf(root).some(({ to }) => path.startsWith(`${to}/`))
}

function* copyOf(from: string, path: string): Generator<TarEntry> {
  const stat = lstatSync(from)
  const mode = stat.mode & 0o777
  if (OF_DOCKER.has(path) || !isOpenToAll(stat)) return
  if (stat.isSymbolicLink()) yield { type: 'link', path, target: readlinkSync(from) }
  else if (stat.isFile()) {
    yield { type: 'file', path, mode, data: readFileSync(from) }
  } else if (stat.isDirectory()) {
    yield { type: 'directory', path, mode: 0o755 }
    for (const name of readdirSync(from).toSorted())
      yield* copyOf(join(from, name), `${path}/${name}`)
  }
}

/** What only root may read is left out: shadow, private keys and the like. */
function isOpenToAll(stat: Stats): boolean {
  const wanted = stat.isDirectory() ? 0o005 : 0o004
  return (stat.mode & wanted) === wanted
}

/** The account gets the number that its files have on the host. */
function withUser(entry: TarEntry, { uid, gid }: ContainerUser): TarEntry {
  if (entry.type !== 'file' || !/^\/etc\/(passwd|group)$/.test(entry.path)) return entry
  const text = entry.data
    .toString()
    .replace(/^sandbox:x:\d+:\d+:/m, `sandbox:x:${uid}:${gid}:`)
    .replace(/^sandbox:x:\d+:$/m, `sandbox:x:${gid}:`)
  return { ...entry, data: Buffer.from(text) }
}

/** As tar has it since POSIX.1-1988, and for longer names as GNU's: everything is root's and from 1970. */
export function tarOf(entries: TarEntry[]): Buffer {
  const blocks = entries.flatMap((entry) => {
    const path = entry.path.slice(1) + (entry.type === 'directory' ? '/' : '')
    const data = entry.type === 'file' ? entry.data : Buffer.alloc(0)
    const target = entry.type === 'link' ? entry.target : ''
    return [
      ...longName('L', path),
      ...longName('K', target),
      header(entry.type, path, target, entry.type === 'link' ? 0o777 : entry.mode, data.length),
      ...padded(data),
    ]
  })
  return Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK)])
}

const BLOCK = 512
const NAME = 100
const TYPES = { file: '0', link: '2', directory: '5', L: 'L', K: 'K' } as const

function longName(type: 'L' | 'K', name: string): Buffer[] {
  const data = Buffer.from(`${name}\0`)
  if (data.length <= NAME) return []
  return [header(type, '././@LongLink', '', 0o644, data.length), ...padded(data)]
}

function header(
  type: keyof typeof TYPES,
  path: string,
  target: string,
  mode: number,
  sizeBytes: number,
): Buffer {
  const block = Buffer.alloc(BLOCK)
  const octal = (value: number, at: number, length: number): void => {
    block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at, 'latin1')
  }
  Buffer.from(path).copy(block, 0, 0, NAME)
  octal(mode, 100, 8)
  octal(0, 108, 8)
  octal(0, 116, 8)
  octal(sizeBytes, 124, 12)
  octal(0, 136, 12)
  block.write(TYPES[type], 156, 'latin1')
  Buffer.from(target).copy(block, 157, 0, NAME)
  block.write('ustar  \0', 257, 'latin1')
  block.fill(' ', 148, 156)
  block.write(
    `${block
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  )
  return block
}

function padded(data: Buffer): Buffer[] {
  const rest = (BLOCK - (data.length % BLOCK)) % BLOCK
  return [data, Buffer.alloc(rest)]
}
