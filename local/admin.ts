import { loadConfig } from '../config.ts'
import { createLogger } from '../log.ts'
import { openStore, type Store } from '../store/index.ts'
import { defaultProjectName } from '../store/keys.ts'
import type { ProjectRow } from '../store/rows.ts'
import { MAX_RUN_EXPIRES_AFTER_SECONDS } from '../wire/limits.ts'
import { databaseOf } from './database-of.ts'

const usage = `Usage:
  npm run admin -- project create NAME
  npm run admin -- project list
  npm run admin -- project set NAME [--on-active-run reject|enqueue|interrupt|rollback|none] [--run-expires-after SECONDS|none]
  npm run admin -- key create [--project NAME] [--name TEXT]   prints the key, once
  npm run admin -- key list
  npm run admin -- key revoke KEY_ID`

/** `npm run admin`: projects and keys, in the database of the running server or the one that DATABASE_URL names. */
async function main(args: string[]): Promise<void> {
  const { words, options } = read(args)
  const config = loadConfig(process.env)
  const log = createLogger(config.logLevel)
  await using database = await databaseOf(config, log)
  await using store = await openStore({ databaseUrl: database.url, log })
  for (const line of await act(store, words, options)) process.stdout.write(`${line}\n`)
}

async function act(
  store: Store,
  [noun, verb, argument, ...rest]: string[],
  options: Map<string, string>,
): Promise<string[]> {
  if (rest.length > 0) throw new Error(usage)
  switch (`${noun} ${verb}`) {
    case 'project create': {
      if (!argument) throw new Error(usage)
      if (await store.keys.findProject(argument)) {
        throw new Error(`There is a project named ${argument} already`)
      }
      const project = await store.keys.createProject(argument)
      return [`${project.id}  ${project.name}`]
    }
    case 'project list':
      return (await store.keys.listProjects()).map(projectLine)
    case 'project set': {
      if (!argument) throw new Error(usage)
      const project = await projectNamed(store, argument)
      const settings = settingsOf(options)
      if (Object.keys(settings).length === 0) throw new Error(usage)
      const changed = await store.keys.setProject(project.id, settings)
      return [projectLine(changed ?? project)]
    }
    case 'key create': {
      const name = options.get('project') ?? defaultProjectName
      const project = await projectNamed(store, name)
      const { row, key } = await store.keys.createKey(project.id, options.get('name') ?? '')
      return [
        key,
        `${row.id} of project ${project.name}. The key is shown this once; the server keeps its hash only.`,
        'From now on this server answers to its keys alone.',
      ]
    }
    case 'key list': {
      const keys = await store.keys.listKeys()
      return keys.map(
        ({ id, tail, name, project_id, created_at, revoked_at }) =>
          `${id}  ...${tail}  ${project_id}  ${created_at.toISOString()}  ${revoked_at ? 'revoked' : 'in force'}  ${name}`,
      )
    }
    case 'key revoke': {
      if (!argument) throw new Error(usage)
      const revoked = await store.keys.revokeKey(argument)
      if (!revoked) throw new Error(`There is no key ${argument}; see: key list`)
      return [
        `${revoked.id} is revoked. A server that ever had a key stays closed to everybody without one.`,
      ]
    }
    default:
      throw new Error(usage)
  }
}

async function projectNamed(store: Store, name: string): Promise<ProjectRow> {
  if (name === defaultProjectName) return store.keys.defaultProject()
  const project = await store.keys.findProject(name)
  if (!project) throw new Error(`There is no project ${name}; make it with: project create ${name}`)
  return project
}

function projectLine({ id, name, on_active_run, run_expires_after_s }: ProjectRow): string {
  const expires = run_expires_after_s === null ? 'none' : `${run_expires_after_s} s`
  return `${id}  on-active-run ${on_active_run ?? 'none'}  run-expires-after ${expires}  ${name}`
}

type Settings = Parameters<Store['keys']['setProject']>[1]

/** `none` takes a setting back, to what the server does by itself. */
function settingsOf(options: Map<string, string>): Settings {
  const settings: Settings = {}
  const mode = options.get('on-active-run')
  if (mode === 'none') settings.on_active_run = null
  else if (mode !== undefined) {
    const known = onActiveRunModes.find((one) => one === mode)
    if (!known) throw new Error(`--on-active-run is ${mode}.\n${usage}`)
    settings.on_active_run = known
  }
  const expires = options.get('run-expires-after')
  if (expires === 'none') settings.run_expires_after_s = null
  else if (expires !== undefined) {
    const seconds = Number(expires)
    if (!Number.isInteger(seconds) || seconds < 1 || seconds > MAX_RUN_EXPIRES_AFTER_SECONDS) {
      throw new Error(
        `--run-expires-after is ${expires}; it takes seconds from 1 to ${MAX_RUN_EXPIRES_AFTER_SECONDS}, or none.\n${usage}`,
      )
    }
    settings.run_expires_after_s = seconds
  }
  return settings
}

const onActiveRunModes = ['reject', 'enqueue', 'interrupt', 'rollback'] as const

const optionNames = ['--project', '--name', '--on-active-run', '--run-expires-after']

function read(args: string[]): { words: string[]; options: Map<string, string> } {
  const words: string[] = []
  const options = new Map<string, string>()
  for (let i = 0; i < args.length; i += 1) {
    const arg = args[i] ?? ''
    const value = args[i + 1]
    if (!arg.startsWith('--')) words.push(arg)
    else if (optionNames.includes(arg) && value !== undefined) {
      options.set(arg.slice(2), value)
      i += 1
    } else throw new Error(`${arg} is not known here, or has no value.\n${usage}`)
  }
  return { words, options }
}

try {
  await main(process.argv.slice(2))
  process.exit(0)
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(1)
}
