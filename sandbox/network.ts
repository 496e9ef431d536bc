import { lookup } from 'node:dns/promises'
import { chmod, mkdir, open } from 'node:fs/promises'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { BlockList, connect, isIP } from 'node:net'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'

import { InvalidError } from './errors.ts'
import { KERNEL_PATH } from './kernel-files.ts'
import type { SandboxOptions } from './provider.ts'
import { removeTree } from './remove-tree.ts'
import type { SandboxRoot } from './root.ts'
import type { Sandbox } from './sandbox.ts'

/**
 * The one way out of a sandbox without a network: a proxy of the host on a Unix socket, which connects to nothing but what is
 * on its list, and a forwarder inside that listens where HTTPS_PROXY points.
 */
export interface Door extends AsyncDisposable {
  /** Holds the socket. To be bound, read-only, at DOOR_PATH. */
  directory: string
  /** For the environment inside. */
  env: Record<string, string>
  /** Starts the forwarder, and again whenever somebody has killed it. */
  attach(sandbox: Sandbox): Promise<void>
}

export interface DoorOptions {
  network: SandboxOptions['network']
  /** Is made, and removed with the door. */
  directory: string
  root: SandboxRoot
  /** Where names lead. */
  resolve?: (host: string) => Promise<string[]>
}

export const DOOR_PATH = '/run/network'

const SOCKET = 'proxy.sock'
const INSIDE_PORT = 3128
const MAX_CONNECTIONS = 64
const CONNECT_TIMEOUT_MS = 15_000
/** Code that takes the port would otherwise have us start one after the other. */
const RESTART_PAUSE_MS = 1000

/** Undefined where no network is allowed. Throws InvalidError for an entry that is not `host:port`. */
export async function openDoor(options: DoorOptions): Promise<Door | undefined> {
  const { network, directory, root, resolve = resolveName } = options
  if (network === 'none' || network.allow.length === 0) return undefined
  const allowed = new Set(network.allow.map((entry) => nameOf(parseEntry(entry))))
  const open = (target: Target): Promise<Address> => findAddress(target, allowed, resolve)

  const server = createServer((incoming, answer) => void forward(incoming, answer, open))
  server.on('connect', (incoming: IncomingMessage, client: Duplex, head: Buffer) => {
    void tunnel(incoming, client, head, open)
  })
  server.maxConnections = MAX_CONNECTIONS
  await mkdir(directory, { recursive: true, mode: 0o755 })
  await listen(server, directory)
  const url = `http://127.0.0.1:${INSIDE_PORT}`
  const names = ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY']

  return {
    directory,
    env: {
      ...Object.fromEntries(names.map((name) => [name, url])),
      no_proxy: 'localhost,127.0.0.1',
      NO_PROXY: 'localhost,127.0.0.1',
    },
    attach: async (sandbox) => await keepForwarding(sandbox, root),
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await removeTree(directory)
    },
  }
}

type Target = { host: string; port: number }
type Address = { address: string; port: number }

function parseEntry(entry: string): Target {
  const target = parseTarget(entry)
  if (!target) throw new InvalidError(`${entry} is not host:port, e.g. example.com:443.`)
  return target
}

function parseTarget(text: string): Target | undefined {
  const groups = /^(?:\[(?<v6>[0-9a-f:.]+)\]|(?<host>[\w.-]+)):(?<port>\d{1,5})$/i.exec(
    text,
  )?.groups
  const host = (groups?.['v6'] ?? groups?.['host'])?.toLowerCase().replace(/\.$/, '')
  const port = Number(groups?.['port'])
  return host !== undefined && port > 0 && port < 65_536 ? { host, port } : undefined
}

function nameOf({ host, port }: Target): string {
  return `${host} ${port}`
}

async function resolveName(host: string): Promise<string[]> {
  return (await lookup(host, { all: true })).map(({ address }) => address)
}

/** Throws Refusal. A name is compared before anybody asks where it leads, and may not lead into private networks. */
async function findAddress(
  target: Target,
  allowed: Set<string>,
  resolve: (host: string) => Promise<string[]>,
): Promise<Address> {
  if (!allowed.has(nameOf(target)))
    throw new Refusal(403, `${target.host}:${target.port} is not allowed`)
  if (isIP(target.host)) return { address: target.host, port: target.port }
  const addresses = await resolve(target.host).catch(() => [])
  const address = addresses.find((one) => !isPrivate(one))
  if (address !== undefined) return { address, port: target.port }
  throw new Refusal(502, `${target.host} leads nowhere, or into a private network`)
}

class Refusal extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

const privateAddresses = new BlockList()
for (const [network, bits] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['224.0.0.0', 3],
] as const) {
  privateAddresses.addSubnet(network, bits, 'ipv4')
}
// Only what is routed worldwide, without what wraps addresses of version 4.
const worldwide = new BlockList()
worldwide.addSubnet('2000::', 3, 'ipv6')
const wrapping = new BlockList()
wrapping.addSubnet('2001::', 32, 'ipv6')
wrapping.addSubnet('2002::', 16, 'ipv6')

function isPrivate(address: string): boolean {
  if (isIP(address) === 4) return privateAddresses.check(address, 'ipv4')
  return !worldwide.check(address, 'ipv6') || wrapping.check(address, 'ipv6')
}

type Open = (target: Target) => Promise<Address>

/** `CONNECT host:port`: bytes both ways, most often TLS. */
async function tunnel(
  incoming: IncomingMessage,
  client: Duplex,
  head: Buffer,
  open: Open,
): Promise<void> {
  client.on('error', () => {})
  try {
    const target = parseTarget(incoming.url ?? '')
    if (!target) throw new Refusal(400, 'CONNECT needs host:port')
    const { address, port } = await open(target)
    const remote = connect({ host: address, port, timeout: CONNECT_TIMEOUT_MS })
    await new Promise<void>((resolve, reject) => {
      remote.once('connect', resolve)
      remote.once('error', reject)
      remote.once('timeout', () => remote.destroy(new Error('timed out')))
    })
    remote.setTimeout(0)
    client.write('HTTP/1.1 200 Connection established\r\n\r\n')
    remote.write(head)
    await Promise.all([pipeline(client, remote), pipeline(remote, client)])
  } catch (error) {
    if (client.writable) client.end(`HTTP/1.1 ${describe(error).status} refused\r\n\r\n`)
    else client.destroy()
  }
}

/** `GET http://host/path`. */
async function forward(
  incoming: IncomingMessage,
  answer: ServerResponse,
  open: Open,
): Promise<void> {
  try {
    const url = URL.parse(incoming.url ?? '')
    if (url?.protocol !== 'http:') throw new Refusal(400, 'This is a proxy for http:// and CONNECT')
    const port = url.port === '' ? 80 : Number(url.port)
    const { address } = await open({ host: url.hostname.replaceAll(/^\[|\]$/g, ''), port })
    const { 'proxy-connection': _, 'proxy-authorization': __, ...headers } = incoming.headers
    const outgoing = request({
      host: address,
      port,
      method: incoming.method,
      path: `${url.pathname}${url.search}`,
      // The name that was compared, whatever the client calls itself a guest of.
      headers: { ...headers, host: url.host, connection: 'close' },
      timeout: CONNECT_TIMEOUT_MS,
    })
    const response = new Promise<IncomingMessage>((resolve, reject) => {
      outgoing.once('response', resolve)
      outgoing.once('error', reject)
      outgoing.once('timeout', () => outgoing.destroy(new Error('timed out')))
    })
    await pipeline(incoming, outgoing)
    const { statusCode = 502, headers: answered } = await response
    answer.writeHead(statusCode, answered)
    await pipeline(await response, answer)
  } catch (error) {
    const { status, message } = describe(error)
    if (answer.headersSent) answer.destroy()
    else answer.writeHead(status, { 'content-type': 'text/plain' }).end(`${message}\n`)
  }
}

function describe(error: unknown): { status: number; message: string } {
  if (error instanceof Refusal) return { status: error.status, message: error.message }
  return { status: 502, message: 'The server could not be reached' }
}

/** By a descriptor of its directory, since names of sockets are short. */
async function listen(server: ReturnType<typeof createServer>, directory: string): Promise<void> {
  const handle = await open(directory)
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(`/proc/self/fd/${handle.fd}/${SOCKET}`, resolve)
    })
  } finally {
    await handle.close()
  }
  await chmod(join(directory, SOCKET), 0o666)
}

async function keepForwarding(sandbox: Sandbox, root: SandboxRoot): Promise<void> {
  const argv = [root.python, '-I', '-S', '-B', `${KERNEL_PATH}/forwarder.py`]
  const forwarder = await sandbox.exec([...argv, String(INSIDE_PORT), `${DOOR_PATH}/${SOCKET}`])
  // Its first line says that it listens.
  await new Promise((resolve) => forwarder.stdout.once('data', resolve).once('end', resolve))
  const again = async (): Promise<void> => {
    await sleep(RESTART_PAUSE_MS, undefined, { ref: false })
    await keepForwarding(sandbox, root)
  }
  // It rejects where the sandbox is gone, and then nothing is to be started.
  forwarder
    .wait()
    .then(again)
    .catch(() => {})
}
